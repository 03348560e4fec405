"""Async scheduling in a running engine: steps are scheduled before the last tokens are known.

The CPU platform switches it off, so streams and events stand in; the scheduler, its placeholders
and the runner's bookkeeping are vLLM's own. ``engine/README.md`` says more.
"""

from __future__ import annotations

import importlib.util
import random
from contextlib import AbstractContextManager

import pytest

from tests.vllm.boxes import black_boxes
from tests.vllm.engine import Emulation, EngineRun, engine

pytestmark = [
    pytest.mark.skipif(
        importlib.util.find_spec("vllm") is None,
        reason="vLLM is not installed here: see tests/vllm/engine/README.md",
    ),
    pytest.mark.timeout(900),
]

RANKS = (0, 1)
TOKENS = 16

_random = random.Random(7)  # noqa: S311
PADDED = [[_random.randrange(3, 512) for _ in range(3 + i)] for i in range(15)]
FRESH = [[5 + i, 9 + i] for i in range(3)]

Outputs = list[list[list[int]]]


def asynchronous(mode: str) -> AbstractContextManager[EngineRun]:
    return engine(
        emulate=Emulation(asynchronous=True),
        graphguard=mode,
        worker_extension_cls="graphguard.vllm.worker.GuardedWorker",
    )


def answers(run: EngineRun) -> Outputs:
    return [run.generate(PADDED, TOKENS), run.generate(FRESH, TOKENS)]


@pytest.fixture(scope="module")
def unguarded() -> Outputs:
    with asynchronous("off") as run:
        outputs = answers(run)
        steps = run.trace(0).of("step")
    # The seeds' step, with the placeholder that their reports show.
    assert "placeholders" in {s.detail for s in steps if (s.num_reqs, s.num_tokens) == (15, 30)}
    return outputs


@pytest.mark.parametrize("mode", ["observe", "enforce"])
def test_the_tokens_are_those_of_the_unguarded_engine_and_the_ranks_agree(
    mode: str, unguarded: Outputs
) -> None:
    with asynchronous(mode) as run:
        assert answers(run) == unguarded
        for report in run.rpc("graphguard_report"):
            assert [model["divergences"] for model in report["models"]] == [[], []]
        replays = [run.trace(rank).counts("replay") for rank in RANKS]
        records, summary = black_boxes(run)
        log = run.log

    assert replays[0] == replays[1]
    assert replays[0]["target", "FULL", 32, 16] > TOKENS / 2
    assert (summary["first_difference"], summary["divergences"]) == (None, 0)
    checks = [[r for r in records if r["event"] == "check" and r["rank"] == k] for k in RANKS]
    assert {check["role"] for check in checks[0]} == {"target", "drafter"}
    assert len(checks[0]) == len(checks[1]) > 2 * TOKENS
    # The wrong phase is told where nothing is done about it.
    assert (":prefill: the only graphs of this shape were" in log) is (mode == "observe")
