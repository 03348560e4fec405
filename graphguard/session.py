"""The session: every signature that this process has recorded, and its manifest."""

from __future__ import annotations

import os
import sys
from collections.abc import Callable
from datetime import datetime, timezone
from typing import TYPE_CHECKING

from graphguard import environment, manifest
from graphguard.environment import Mode
from graphguard.errors import ConfigurationError
from graphguard.manifest import Manifest
from graphguard.signature import Signature
from graphguard.version import __version__

if TYPE_CHECKING:
    from pathlib import Path


_NO_JOB = (0, 1)


class Session:
    """Signatures in the order of their capture, and what a manifest says besides.

    Attributes:
        signatures: One for each captured graph that is still in use.
        query_lens: For each role, the query tokens of a request in a uniform decode step.
        mode: The mode of the guard that recorded last.
        on_change: Called after each change of the signatures.
    """

    def __init__(self) -> None:
        self.signatures: list[Signature] = []
        self.query_lens: dict[str, int] = {}
        self.mode: Mode | None = None
        self.on_change: Callable[[], None] = _nothing
        self._place = _NO_JOB

    def record(self, signature: Signature) -> None:
        """Keep a signature."""
        self.signatures.append(signature)
        self._changed()

    def replace(self, old: Signature, new: Signature) -> None:
        """Keep ``new`` in the place of ``old``, whose graph was captured again."""
        for place, signature in enumerate(self.signatures):
            if signature is old:
                self.signatures[place] = new
                break
        else:
            self.signatures.append(new)
        self._changed()

    def manifest(self) -> Manifest:
        """Return the manifest of this process as it is now."""
        rank, world_size = self._rank()
        return Manifest(
            rank=rank,
            world_size=world_size,
            signatures=tuple(self.signatures),
            query_lens=dict(self.query_lens),
            mode=str(self.mode or ""),
            host=os.uname().nodename,
            pid=os.getpid(),
            created=datetime.now(timezone.utc).isoformat(timespec="seconds"),
            versions=versions(),
        )

    def write_manifest(self, directory: str | os.PathLike[str] | None = None) -> Path:
        """Write the manifest of this process and return its path.

        Args:
            directory: Where to; without it, where ``GRAPHGUARD_DIR`` says.

        Raises:
            ConfigurationError: If neither says where.
            ManifestError: If it cannot be written there.
        """
        from pathlib import Path

        target = Path(directory) if directory is not None else environment.directory()
        if target is None:
            raise ConfigurationError(
                "nothing says where the manifest is to be written",
                hint="give a directory, or set GRAPHGUARD_DIR",
            )
        return manifest.write(self.manifest(), target)

    def _changed(self) -> None:
        if (place := process_rank()) != _NO_JOB:
            self._place = place
        self.on_change()

    def _rank(self) -> tuple[int, int]:
        """Return the rank of this process, or that of its last capture if it knows it no more.

        A program leaves its process group before it ends, and manifests are written after that.
        """
        place = process_rank()
        return self._place if place == _NO_JOB else place


def process_rank() -> tuple[int, int]:
    """Return the global rank of this process and the number of ranks.

    From torch.distributed if it is initialised, else from RANK and WORLD_SIZE as torchrun sets
    them, else 0 of 1.
    """
    distributed = sys.modules.get("torch.distributed")
    if distributed is not None and distributed.is_available() and distributed.is_initialized():
        return distributed.get_rank(), distributed.get_world_size()
    return _natural("RANK", 0), _natural("WORLD_SIZE", 1)


def versions() -> dict[str, str]:
    """Return the versions of graphguard and of what this process has imported of its world."""
    found = {"graphguard": __version__, "python": sys.version.partition(" ")[0]}
    torch = sys.modules.get("torch")
    if torch is not None:
        found["torch"] = str(torch.__version__)
        if torch.version.cuda:
            found["cuda"] = str(torch.version.cuda)
            found["nccl"] = ".".join(map(str, torch.cuda.nccl.version()))
    for name in ("vllm", "cupy"):
        version = getattr(sys.modules.get(name), "__version__", None)
        if isinstance(version, str):
            found[name] = version
    return found


def _nothing() -> None:
    """Do nothing about a change."""


def _natural(name: str, default: int) -> int:
    value = os.environ.get(name, "")
    return int(value) if value.isdecimal() else default


default_session = Session()
"""The session that guards and recordings use unless they are given another."""
