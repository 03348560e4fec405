"""The Python files of other versions of torch: ``python -m tests.torch_wheels``.

Of each wheel only ``torch/cuda`` is kept. A wheel is looked for in $GRAPHGUARD_TORCH_WHEELS, which
is build/torch if it is not set, and fetched there from the package index if it is not found; each
is about 540 MB. What was unpacked of it is always in build/torch.
"""

from __future__ import annotations

import os
import subprocess
import sys
import tempfile
import zipfile
from pathlib import Path

REPOSITORY = Path(__file__).parents[1]
UNPACKED = REPOSITORY / "build" / "torch"

VERSIONS = ("2.9.1", "2.11.0", "2.14.0", "2.15.0")
"""The oldest with the surface that is patched, one between, and all series that have hooks."""


def cuda_files(version: str) -> Path | None:
    """Return the folder ``torch/cuda`` of a version, or None if its wheel is not at hand."""
    folder = UNPACKED / version
    if not folder.is_dir():
        wheel = _wheel(version)
        if wheel is None:
            return None
        UNPACKED.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryDirectory(dir=UNPACKED) as unfinished:
            # A run that is interrupted must not leave a folder that the next one takes for whole.
            unpacked = Path(unfinished, version)
            with zipfile.ZipFile(wheel) as archive:
                names = [n for n in archive.namelist() if n.startswith("torch/cuda/")]
                archive.extractall(unpacked, [n for n in names if n.endswith(".py")])
            unpacked.rename(folder)
    return folder / "torch" / "cuda"


def fetch(version: str) -> None:
    """Fetch a wheel, if it is not at hand.

    Raises:
        subprocess.CalledProcessError: If the package index does not give it.
    """
    if cuda_files(version) is not None:
        return
    command = [sys.executable, "-m", "pip", "download", "--quiet", "--no-deps"]
    command += [f"--dest={_kept()}", "--only-binary=:all:", f"torch=={version}"]
    # Named, for the Python files are the same for all: this one may have none for its own Python.
    command += ["--platform=manylinux_2_28_x86_64", "--python-version=3.11", "--implementation=cp"]
    subprocess.run(command, check=True)


def _kept() -> Path:
    return Path(os.environ.get("GRAPHGUARD_TORCH_WHEELS") or UNPACKED)


def _wheel(version: str) -> Path | None:
    return next(iter(_kept().glob(f"torch-{version}-*.whl")), None)


if __name__ == "__main__":
    for wanted in VERSIONS:
        fetch(wanted)
        found = cuda_files(wanted)
        assert found is not None, f"pip has downloaded torch {wanted}, but not to {_kept()}"
        print(f"torch {wanted}: {found.relative_to(REPOSITORY)}")
