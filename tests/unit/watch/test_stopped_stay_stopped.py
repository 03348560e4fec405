"""A process that was stopped before its stacks were taken is stopped afterwards."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from graphguard.watch.stack_traces import stacks


def state_of(pid: int) -> str:
    return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0]


@pytest.fixture
def stopped() -> Iterator[int]:
    process = subprocess.Popen([sys.executable, "-c", "import time; time.sleep(60)"])
    os.kill(process.pid, signal.SIGSTOP)
    until = time.monotonic() + 10
    while state_of(process.pid) != "T":
        assert time.monotonic() < until
        time.sleep(0.01)
    yield process.pid
    process.kill()
    process.wait()


@pytest.mark.parametrize("before", ["T", "t", ""], ids=["stopped", "held", "not known"])
def test_an_engine_that_is_ended_half_way_does_not_let_it_go_on(stopped: int, before: str) -> None:
    stacks._resume(stopped, before)
    time.sleep(0.2)

    assert state_of(stopped) == "T"


def test_one_that_ran_before_goes_on(stopped: int) -> None:
    stacks._resume(stopped, "S")

    assert state_of(stopped) != "T"


def test_its_stacks_are_taken_several_times(stopped: int) -> None:
    """Each engine may be ended half-way: there is little time."""
    for _ in range(3):
        stacks.sample([stopped], 0.3)

    assert state_of(stopped) == "T"
