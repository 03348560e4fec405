"""Interpreters, clean environments and copies of the sources, for building and installing."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path

REPOSITORY = Path(__file__).parents[2]
RUNNING = f"{sys.version_info[0]}.{sys.version_info[1]}"
STEP_TIMEOUT = 400


def run(*command: str | Path, cwd: Path) -> str:
    """Run a command away from the repository and return what it printed."""
    environment = {name: value for name, value in os.environ.items() if name != "PYTHONPATH"}
    # A variable, because the pip that comes with Python 3.10 has no option for it.
    environment["CMAKE_ARGS"] = "-DGRAPHGUARD_WERROR=ON"
    done = subprocess.run(
        [str(part) for part in command],
        cwd=cwd,
        env=environment,
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        timeout=STEP_TIMEOUT,
        check=False,
    )
    assert done.returncode == 0, f"{' '.join(map(str, command))} failed:\n{done.stdout}"
    return done.stdout


def interpreter(version: str) -> Path | None:
    """Find the interpreter of a version, or None. That a file has its name is not enough."""
    if version == RUNNING:
        return Path(sys.executable)
    found = shutil.which(f"python{version}")
    if found is None:
        return None
    # What pyenv puts on PATH runs the versions that are chosen, and by default that is one.
    environment = os.environ | {"PYENV_VERSION": version}
    question = "import sys, venv, ensurepip; print('%d.%d' % sys.version_info[:2], sys.executable)"
    done = subprocess.run(
        [found, "-c", question],
        env=environment,
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    answered, _, executable = done.stdout.strip().partition(" ")
    return Path(executable) if answered == version else None


def copy_sources(destination: Path) -> Path:
    """Copy what is in the repository or about to be, so that nothing built lies about."""
    listed = subprocess.run(
        ["git", "ls-files", "-z", "--cached", "--others", "--exclude-standard"],
        cwd=REPOSITORY,
        capture_output=True,
        text=True,
        timeout=60,
        check=True,
    )
    for name in filter(None, listed.stdout.split("\0")):
        source, target = REPOSITORY / name, destination / name
        if source.is_file():
            target.parent.mkdir(parents=True, exist_ok=True)
            shutil.copy2(source, target)
    return destination


@dataclass(frozen=True)
class Environment:
    """A virtual environment with nothing in it but pip."""

    folder: Path

    @classmethod
    def new(cls, python: Path, folder: Path) -> Environment:
        folder.parent.mkdir(parents=True, exist_ok=True)
        run(python, "-m", "venv", folder, cwd=folder.parent)
        return cls(folder)

    @property
    def python(self) -> Path:
        return self.folder / "bin" / "python"

    def pip(self, *arguments: str | Path) -> str:
        return run(self.python, "-m", "pip", *arguments, cwd=self.folder)
