"""``graphguard watch`` on real ranks that serve, stall, and recover or die."""

from __future__ import annotations

import json
import os
import signal
import time
from collections.abc import Callable
from typing import Any

import pytest

from graphguard.commands import main
from tests.distributed.test_stalls import STALL, Job, Start, forker, job

__all__ = ["forker", "job"]
"""The fixtures that start ranks."""

PATIENCE = 60.0
FOREVER = {"STALL_STEPS": "100000000", "GRAPHGUARD_WHEN_STUCK": "report"}

Look = tuple[int, dict[str, Any]]


class Watching:
    """Looks at a job once, or until something holds."""

    def __init__(self, capsys: pytest.CaptureFixture[str]) -> None:
        self._capsys = capsys

    def look(self, *targets: object) -> Look:
        code = main(["watch", *map(str, targets), "--once", "--json"])
        found: dict[str, Any] = json.loads(self._capsys.readouterr().out)
        return code, found

    def until(self, running: Job, holds: Callable[[Look], bool]) -> Look:
        deadline = time.monotonic() + PATIENCE
        while not holds(look := self.look(running.boxes)):
            assert time.monotonic() < deadline, look
            time.sleep(0.1)
        return look


@pytest.fixture
def watching(capsys: pytest.CaptureFixture[str]) -> Watching:
    return Watching(capsys)


def states(look: Look) -> list[str]:
    return [rank["state"] for rank in look[1]["ranks"]]


def test_ranks_that_serve_are_no_trouble(job: Start, watching: Watching) -> None:
    running = job("nothing", **FOREVER)
    running.serve()
    code, found = watching.until(
        running, lambda look: all((rank["step"] or 0) > 10 for rank in look[1]["ranks"])
    )

    assert code == 0
    assert [rank["rank"] for rank in found["ranks"]] == [0, 1]
    assert {rank["state"] for rank in found["ranks"]} <= {"busy", "idle"}
    assert all(rank["pulse"]["beat_age_ns"] is not None for rank in found["ranks"])
    assert all(rank["verdicts"]["eager"] > 5 for rank in found["ranks"])
    assert found["stalls"] == []
    assert [rank["pid"] for rank in watching.look(running.pids[0])[1]["ranks"]] == running.pids


def test_a_stopped_rank_is_a_stall_until_it_goes_on(job: Start, watching: Watching) -> None:
    running = job("nothing", **FOREVER)
    running.serve()
    os.kill(running.pids[1], signal.SIGSTOP)
    running.line(STALL)
    code, found = watching.until(
        running, lambda look: any(stall["verdict"] for stall in look[1]["stalls"])
    )

    assert code == 1
    assert states((code, found)) == ["stalled", "stopped"]
    (stall,) = found["stalls"]
    assert stall["open"]
    assert stall["examined"]
    assert (stall["verdict"]["stall_class"], stall["verdict"]["ranks"]) == ("stopped", [1])
    assert sum(rank["pulse"]["stalls"] for rank in found["ranks"]) == 1

    os.kill(running.pids[1], signal.SIGCONT)
    code, found = watching.until(running, lambda look: look[0] == 0)
    (stall,) = found["stalls"]
    assert (stall["open"], stall["over"]) == (False, "recovered")
    assert stall["over_seconds"] > 0


def test_a_rank_that_loops_is_stalled_and_its_peer_too(job: Start, watching: Watching) -> None:
    running = job("spin")
    running.line(STALL)
    code, found = watching.until(
        running, lambda look: any(stall["verdict"] for stall in look[1]["stalls"])
    )

    assert code == 1
    assert states((code, found)) == ["stalled", "stalled"]
    assert found["stalls"][0]["verdict"]["ranks"] == [1]
    assert all(rank["step"] == 4 for rank in found["ranks"])


def test_a_rank_that_is_killed_has_died(job: Start, watching: Watching) -> None:
    running = job("nothing", **FOREVER)
    running.serve()
    os.kill(running.pids[1], signal.SIGKILL)
    code, found = watching.until(running, lambda look: "died" in states(look))

    assert code == 1
    assert states((code, found))[1] == "died"
