"""Engines that end in any way: what graphguard says, and that it leaves nothing behind."""

from __future__ import annotations

import importlib.util
import os
import signal
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from tests.vllm.boxes import black_boxes
from tests.vllm.engine import EngineFailed, EngineRun, engine
from tests.vllm.engine.processes import EngineProcesses, wait_until

pytestmark = [
    pytest.mark.skipif(
        importlib.util.find_spec("vllm") is None,
        reason="vLLM is not installed here: see tests/vllm/engine/README.md",
    ),
    pytest.mark.timeout(900),
]

PROMPTS = [[5 + i, 6, 7] for i in range(4)]


def ledgers() -> set[str]:
    """The segments of ledgers that have a name."""
    return {path.name for path in Path("/dev/shm").glob("graphguard-*")}  # noqa: S108


@contextmanager
def nothing_left() -> Iterator[None]:
    before = ledgers()
    yield
    assert ledgers() <= before


def test_two_engines_on_one_machine_do_not_meet() -> None:
    with nothing_left():
        with engine(graphguard="enforce") as one, engine(graphguard="enforce") as other:
            assert one.generate(PROMPTS, 8) == other.generate(PROMPTS, 8)
            one.generate(PROMPTS, 8)
            summaries = [black_boxes(run)[1] for run in (one, other)]
            pids = [{record["pid"] for record in black_boxes(run)[0]} for run in (one, other)]
        assert [summary["first_difference"] for summary in summaries] == [None, None]
        assert len(pids[0]) == len(pids[1]) == 2
        assert not pids[0] & pids[1]
        # Both were asked to end, and did.
        for run in (one, other):
            assert run.processes.leader.returncode == 0


def killed(run: EngineRun) -> str:
    """Kill a worker while requests run, and return what the engine printed until it ended."""
    run.begin(PROMPTS, 1900)
    assert wait_until(lambda: run.step(0) > 20, 60)
    run.processes.kill(1)
    with pytest.raises(EngineFailed) as caught:
        run.finish(60)
    return caught.value.log


def test_a_worker_that_is_killed_is_named_by_the_other_one() -> None:
    with nothing_left(), engine(graphguard="enforce") as run:
        log = killed(run)
        assert wait_until(lambda: not run.processes.workers(), 20)
        records, _ = black_boxes(run)

    gone = [r for r in records if r["event"] == "divergence" and r["divergence"] == "peer_gone"]
    assert "rank 1 (process" in log or gone
    steps = {
        rank: max(r["step"] for r in records if r["event"] == "check" and r["rank"] == rank)
        for rank in (0, 1)
    }
    assert abs(steps[0] - steps[1]) <= 2


def test_an_engine_that_is_ended_while_it_starts_leaves_nothing(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    began: list[float] = []

    def ended_while_starting(self: EngineRun, timeout: float = 0.0) -> None:
        del timeout
        processes: EngineProcesses = self.processes
        # The ranks have met by then, so there is a ledger.
        assert wait_until(lambda: "agree on target" in self.log, 400), self.log[-2000:]
        began.append(time.monotonic())
        os.killpg(processes.leader.pid, signal.SIGTERM)
        wait_until(lambda: not processes.pids(), 60)

    monkeypatch.setattr(EngineRun, "wait_until_ready", ended_while_starting)
    with nothing_left(), engine(graphguard="enforce") as run:
        left = run.processes.pids()

    assert left == []
    assert began
