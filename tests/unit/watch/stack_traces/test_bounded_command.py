"""Commands with a hard limit."""

from __future__ import annotations

import os
import sys
import time
from pathlib import Path

import pytest

from graphguard.watch.stack_traces import bounded_command
from tests.unit.watch.waiting import until


def python(program: str) -> list[str]:
    return [sys.executable, "-c", program]


def test_what_a_command_says_is_returned() -> None:
    told = bounded_command.run(
        python("import sys; print('out'); print('err', file=sys.stderr)"), 30.0
    )
    assert (told.output, told.errors, told.problem) == (b"out\n", b"err\n", "")


def test_a_command_that_fails_is_a_problem() -> None:
    assert bounded_command.run(python("raise SystemExit(3)"), 30.0).problem == "it ended with 3"
    assert "cannot be started" in bounded_command.run(["/nowhere/at/all"], 30.0).problem


@pytest.mark.skipif(
    sys.version_info < (3, 11), reason="subprocess has no process_group before 3.11"
)
def test_a_command_has_a_group_of_its_own_in_the_same_session() -> None:
    told = bounded_command.run(
        python("import os; print(os.getpgid(0) == os.getpid(), os.getsid(0))"), 30.0
    )
    assert told.output.decode() == f"True {os.getsid(0)}\n"


def test_a_command_that_hangs_is_ended_with_all_that_it_has_started(tmp_path: Path) -> None:
    file = tmp_path / "child"
    program = (
        "import subprocess, time, pathlib\n"
        "child = subprocess.Popen(['sleep', '600'])\n"
        f"pathlib.Path({str(file)!r}).write_text(str(child.pid))\n"
        "time.sleep(600)\n"
    )
    began = time.monotonic()
    told = bounded_command.run(python(program), 2.0)
    assert told.ended_here
    assert "took longer" in told.problem
    assert time.monotonic() - began < 10.0
    child = int(file.read_text())
    until(lambda: not os.path.exists(f"/proc/{child}/stat") or _ended(child))


def test_a_command_that_closes_its_output_and_stays_is_ended() -> None:
    program = "import os, time; os.close(1); os.close(2); time.sleep(600)"
    told = bounded_command.run(python(program), 1.0)
    assert told.ended_here


def test_a_command_that_talks_without_end_is_ended() -> None:
    program = "import sys\nwhile True: sys.stdout.write('x' * 65536)"
    told = bounded_command.run(python(program), 30.0, max_output=200_000)
    assert "more than 200,000 bytes" in told.problem


def _ended(pid: int) -> bool:
    return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] in "ZX"
