"""Builds one target of the project's CMake file in a folder of its own."""

from __future__ import annotations

import shutil
import subprocess
import sys
from pathlib import Path

REPOSITORY = Path(__file__).parents[2]
CONFIGURE_TIMEOUT = 120
BUILD_TIMEOUT = 240


class NativeBuildError(Exception):
    """The target could not be built; the message is what the tool said."""


def tool(name: str) -> str | None:
    """Find a tool, first among those installed beside this interpreter."""
    beside = Path(sys.executable).with_name(name)
    return str(beside) if beside.exists() else shutil.which(name)


def run(command: list[str], timeout: int) -> None:
    """Run a step of the build, and raise what it printed if it fails."""
    try:
        done = subprocess.run(command, capture_output=True, text=True, timeout=timeout, check=False)
    except subprocess.TimeoutExpired as error:
        raise NativeBuildError(f"{' '.join(command)} ran for more than {timeout} s") from error
    if done.returncode != 0:
        raise NativeBuildError(f"{' '.join(command)} failed:\n{done.stdout}{done.stderr}")


def build(target: str, option: str, folder: str) -> Path:
    """Build ``target``, switched on by ``option``, in ``build/folder`` and return its path.

    What is up to date is not built again.
    """
    cmake, ninja = tool("cmake"), tool("ninja")
    if cmake is None:
        raise NativeBuildError("cmake is not installed; it is needed to build graphguard itself")
    place = REPOSITORY / "build" / folder
    generator = ["-G", "Ninja", f"-DCMAKE_MAKE_PROGRAM={ninja}"] if ninja else []
    settings = ["-DGRAPHGUARD_PYTHON=OFF", f"-D{option}=ON", "-DGRAPHGUARD_WERROR=ON"]
    # Fresh: a cache that another checkout or environment left behind must not decide.
    configure = [cmake, "--fresh", "-S", str(REPOSITORY), "-B", str(place), *generator, *settings]
    run(configure, CONFIGURE_TIMEOUT)
    run([cmake, "--build", str(place), "--target", target], BUILD_TIMEOUT)
    return place / target
