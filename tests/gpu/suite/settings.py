"""What a stage is told: how long it may take, and what was brought to the machine."""

from __future__ import annotations

import sys
from pathlib import Path

import msgspec


class Settings(msgspec.Struct, frozen=True):
    """What the runner gives every stage, as a file.

    Attributes:
        scratch: A folder of this stage's own.
        seconds: How long the stage may take; what does not fit it leaves out and says so.
        vllm: Folders that hold a vLLM, by its version.
        nccl: A ``libnccl.so.2`` that takes two ranks on one device (2.30 or newer), or empty.
        emulated: Whether stages that can do it run on emulated graphs and gloo. What comes out is
            no result; it shows that their programs work.
    """

    scratch: str
    seconds: float = 60.0
    vllm: dict[str, str] = {}
    nccl: str = ""
    emulated: bool = False

    @property
    def device(self) -> str:
        """Where tensors are."""
        return "cpu" if self.emulated else "cuda"

    def write(self, path: Path) -> None:
        """Write them for the stage's program."""
        path.write_bytes(msgspec.json.encode(self))


def read(path: Path) -> Settings:
    """Return the settings of a file.

    Raises:
        msgspec.DecodeError: If it holds none.
    """
    return msgspec.json.decode(path.read_bytes(), type=Settings)


def from_arguments() -> Settings:
    """Return those that the runner named, or what holds for a stage that is started by hand."""
    if len(sys.argv) > 1:
        return read(Path(sys.argv[1]))
    scratch = Path("build/gpu/by-hand")
    scratch.mkdir(parents=True, exist_ok=True)
    return Settings(str(scratch))
