"""Stages that need no device, for tests of the runner: real processes that end in every way.

``python -m tests.unit.gpu_suite.fake_stages NAME [FOLDER]``
"""

from __future__ import annotations

import os
import subprocess
import sys
import time
from pathlib import Path

from tests.gpu.suite.lines import MARK, Claim, Figure, NotRun, Spread, tell
from tests.gpu.suite.stage import Stage

SLEEPS = "import time; time.sleep(600)"


def stage(name: str, seconds: float = 20.0, number: int = 1, folder: str = "") -> Stage:
    command = ("-m", "tests.unit.gpu_suite.fake_stages", name, folder)
    return Stage(number, name, f"it {name}", command, seconds, least=0.5, needs_device=False)


def _tell_all() -> None:
    tell(Figure("a replay", "µs", Spread(100, 2.0, 1.0, 3.0, 4.0, 0.5)))
    tell(Claim("it works", True, "seen"))
    tell(NotRun("the rest", "no time"))


def _leave_behind(folder: Path) -> None:
    """Leave a child in this group, and one that has left it."""
    for name, session in (("same-group", False), ("own-session", True)):
        child = subprocess.Popen([sys.executable, "-c", SLEEPS], start_new_session=session)
        (folder / name).write_text(str(child.pid))
    tell(Claim("it leaves children", True))


def _garbage() -> None:
    tell(Claim("it says something", True))
    os.write(1, os.urandom(10_000) + b"\n" + MARK + b' {"type":"figure"}\n' + MARK + b"\xff\n")
    os.write(1, b"in the middle of a line " + MARK + b' {"type":"claim","what":"b","held":null}\n')


def main() -> None:
    name, folder = sys.argv[1], Path(sys.argv[2])
    if name in ("succeeds", "fails"):
        _tell_all()
        sys.exit(0 if name == "succeeds" else 3)
    elif name == "breaks-its-word":
        tell(Claim("it works", False, "it does not"))
    elif name == "hangs":
        tell(Claim("it begins", True))
        (folder / "hangs").write_text(str(os.getpid()))
        time.sleep(600)
    elif name == "writes-garbage":
        _garbage()
    elif name == "floods":
        while True:
            os.write(1, b"x" * 65_536)
    elif name == "leaves-children":
        _leave_behind(folder)
    elif name == "cannot-run":
        tell(NotRun("all of it", "no such device"))
    elif name == "dies":
        os.abort()


if __name__ == "__main__":
    main()
