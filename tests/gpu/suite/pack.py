"""Everything that the suite needs on a machine without network, as one archive.

``python -m tests.gpu.suite.pack OUT.tar.xz [--wheel FILE]``. The machine is expected to have
CPython 3.12 or newer on x86-64 with torch for CUDA; neither compiler nor package index is needed
there. The wheel of graphguard is built with a Python 3.12 of this machine, against the stable ABI,
unless one is given. Unpacked, ``graphguard-gpu/run`` is the suite's command line.
"""

from __future__ import annotations

import argparse
import hashlib
import io
import json
import lzma
import subprocess
import sys
import tarfile
import tempfile
import zipfile
from collections.abc import Iterable
from pathlib import Path

REPOSITORY = Path(__file__).parents[3]
PYTHON = "3.12"
LIMIT_BYTES = 64 * 1024 * 1024
ROOT = "graphguard-gpu"
STEP_SECONDS = 900

PACKAGES = (
    "msgspec==0.22.0",
    "pytest==9.2.0",
    "pytest-timeout==2.4.0",
    "iniconfig==2.3.1",
    "pluggy==1.7.0",
    "packaging==26.3",
    "pygments==2.21.0",
)
"""What the suite imports; pinned, so that two archives hold the same."""

TRACKED = (
    "pyproject.toml",
    "setup.py",
    "CMakeLists.txt",
    "LICENSE",
    "README.md",
    "csrc",
    "tests/__init__.py",
    "tests/conftest.py",
    "tests/gpu",
    "tests/native",
    "tests/distributed",
)
"""What is taken of the repository. The sources of the extension are for building it there."""

# pip matches manylinux_2_N exactly, so each glibc is named that the machine's may be newer than.
PLATFORMS = [f"manylinux_2_{minor}_x86_64" for minor in range(35, 4, -1)] + [
    "manylinux2014_x86_64",
    "manylinux1_x86_64",
]

RUN = b"""#!/bin/sh
# The suite's command line: graphguard-gpu/run --stages 1,2 --minutes 9
here=$(cd "$(dirname "$0")" && pwd) || exit 2
# First in the path, and with no plugins of another pytest: what was brought fits together.
export PYTHONPATH="$here${PYTHONPATH:+:$PYTHONPATH}" PYTEST_DISABLE_PLUGIN_AUTOLOAD=1
cd "$here" && exec "${PYTHON:-python3}" -m tests.gpu.suite "$@"
"""


class PackError(Exception):
    """The archive could not be made."""


def pack(out: Path, wheel: Path | None, scratch: Path) -> list[str]:
    """Make the archive and return what is in it.

    Raises:
        PackError: If a wheel cannot be built or had, or the archive is too large.
    """
    own = wheel or built_wheel(scratch / "own")
    others = downloaded(scratch / "wheels")
    files = contents([own, *others])
    write(out, files)
    size = out.stat().st_size
    if size > LIMIT_BYTES:
        raise PackError(f"{out} has {size} bytes, and a machine takes {LIMIT_BYTES}")
    return sorted(files)


def built_wheel(folder: Path) -> Path:
    """Build graphguard's wheel with a Python 3.12.

    Raises:
        PackError: If there is none, or it fails.
    """
    from tests.packaging.environments import copy_sources, interpreter

    python = interpreter(PYTHON)
    if python is None:
        raise PackError(f"there is no Python {PYTHON} on PATH to build with; give --wheel")
    sources = copy_sources(folder / "sources")
    _step([str(python), "-m", "pip", "wheel", "--no-deps", "-q", "-w", str(folder), str(sources)])
    return _only(folder.glob("graphguard-*.whl"), "wheel of graphguard")


def downloaded(folder: Path) -> list[Path]:
    """Fetch the wheels of what else is needed, for the other machine's Python.

    Raises:
        PackError: If one cannot be had.
    """
    platforms = [word for platform in PLATFORMS for word in ("--platform", platform)]
    options = ["--no-deps", "--only-binary=:all:", "--implementation", "cp"]
    command = [sys.executable, "-m", "pip", "download", "-q", *options]
    command += ["--python-version", PYTHON, *platforms, "-d", str(folder), *PACKAGES]
    _step(command)
    return sorted(folder.glob("*.whl"))


def contents(wheels: list[Path]) -> dict[str, bytes]:
    """Return the files of the archive, by their path below its root.

    Wheels and tests lie side by side, for tests start programs that are given one folder to import
    from.

    Raises:
        PackError: If a wheel is for another machine, or two hold one file.
    """
    files: dict[str, bytes] = {"run": RUN}
    for wheel in wheels:
        _check_tag(wheel)
        with zipfile.ZipFile(wheel) as archive:
            for name in archive.namelist():
                if name.endswith("/") or ".data/" in name:
                    continue
                if name in files or name.startswith(("/", "..")) or "/../" in name:
                    raise PackError(f"{wheel.name} holds {name}, which cannot be taken")
                files[name] = archive.read(name)
    for name in _tracked():
        files[name] = (REPOSITORY / name).read_bytes()
    files["packed.json"] = _description(wheels)
    missing = [n for n in ("graphguard/_core.abi3.so", "msgspec/__init__.py") if n not in files]
    if missing:
        raise PackError(f"the archive would lack {', '.join(missing)}")
    return files


def write(out: Path, files: dict[str, bytes]) -> None:
    """Write the archive; the same files give the same bytes."""
    out.parent.mkdir(parents=True, exist_ok=True)
    with (
        lzma.open(out, "wb", preset=6) as compressed,
        tarfile.open(fileobj=compressed, mode="w", format=tarfile.PAX_FORMAT) as archive,
    ):
        for name in sorted(files):
            member = tarfile.TarInfo(f"{ROOT}/{name}")
            member.size = len(files[name])
            member.mode = 0o755 if name == "run" or name.endswith(".so") else 0o644
            archive.addfile(member, io.BytesIO(files[name]))


def tried(archive: Path, folder: Path) -> str:
    """Unpack an archive and import what is in it with a Python 3.12, if there is one.

    Returns:
        What was seen, in words.

    Raises:
        PackError: If it cannot be imported.
    """
    from tests.packaging.environments import interpreter

    with tarfile.open(archive) as opened:
        opened.extractall(folder, filter="data")
    python = interpreter(PYTHON)
    if python is None:
        return f"unpacked; not imported, for there is no Python {PYTHON} on PATH"
    program = (
        "import graphguard, msgspec, pytest, graphguard._core as core;"
        "import tests.gpu.suite.catalogue, tests.gpu.suite.programs.engine;"
        "from importlib.metadata import entry_points;"
        "assert [e.name for e in entry_points(group='vllm.general_plugins')] == ['graphguard'];"
        "print(core.__file__)"
    )
    said = _step(
        [str(python), "-I", "-c", f"import sys; sys.path[:0] = ['.']; {program}"], folder / ROOT
    )
    return f"unpacked and imported with {python}: {said.strip()}"


def _tracked() -> list[str]:
    listed = _step(["git", "ls-files", "-z", "--", *TRACKED], REPOSITORY)
    return [name for name in listed.split("\0") if name and (REPOSITORY / name).is_file()]


def _check_tag(wheel: Path) -> None:
    python, abi, platform = wheel.stem.split("-")[-3:]
    # The stable ABI of an older Python serves newer ones, and ours is built here for this system.
    own = abi == "abi3" and python.removeprefix("cp3").isdigit() and int(python[3:]) <= 12
    fits = own or abi in ("none", "cp312")
    if not fits or not (platform == "any" or platform.endswith("x86_64")):
        raise PackError(f"{wheel.name} is not for CPython {PYTHON} on x86-64")


def _description(wheels: list[Path]) -> bytes:
    commit = _step(["git", "rev-parse", "HEAD"], REPOSITORY).strip()
    known = {w.name: hashlib.sha256(w.read_bytes()).hexdigest() for w in wheels}
    return json.dumps({"commit": commit, "wheels": known}, indent=1, sort_keys=True).encode()


def _only(found: Iterable[Path], what: str) -> Path:
    paths = list(found)
    if len(paths) != 1:
        raise PackError(f"expected one {what}, found {len(paths)}")
    return paths[0]


def _step(command: list[str], folder: Path | None = None) -> str:
    try:
        done = subprocess.run(
            command,
            cwd=folder,
            capture_output=True,
            text=True,
            timeout=STEP_SECONDS,
            check=False,
        )
    except (OSError, subprocess.TimeoutExpired) as error:
        raise PackError(f"{command[0]} failed: {error}") from error
    if done.returncode:
        raise PackError(f"{' '.join(command[:5])} … failed:\n{done.stdout}{done.stderr}")
    return done.stdout


def main(arguments: list[str] | None = None) -> int:
    """Run the command line."""
    parser = argparse.ArgumentParser(prog="python -m tests.gpu.suite.pack", description=__doc__)
    parser.add_argument("out", type=Path, metavar="OUT.tar.xz")
    parser.add_argument("--wheel", type=Path, help="graphguard's, built for cp312-abi3")
    options = parser.parse_args(arguments)
    with tempfile.TemporaryDirectory(prefix="graphguard-pack-") as scratch:
        try:
            names = pack(options.out, options.wheel, Path(scratch))
            print(f"{options.out}: {options.out.stat().st_size} bytes, {len(names)} files")
            print(tried(options.out, Path(scratch, "tried")))
        except PackError as error:
            print(f"error: {error}", file=sys.stderr)
            return 2
    return 0


if __name__ == "__main__":
    sys.exit(main())
