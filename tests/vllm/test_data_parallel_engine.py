"""Data-parallel ranks of a model with experts, in a running server.

Two engine cores with a worker each, as vLLM starts them: requests are spread over both, a rank
without any runs dummy batches, and every launch holds collectives of both. ``engine/README.md``
says what stands in.
"""

from __future__ import annotations

import importlib.util
import random
from collections.abc import Iterator
from contextlib import AbstractContextManager

import pytest

from tests.vllm.boxes import black_boxes
from tests.vllm.engine import EngineFailed, Fault, FaultKind, ServerRun, server

pytestmark = [
    pytest.mark.skipif(
        importlib.util.find_spec("vllm") is None,
        reason="vLLM is not installed here: see tests/vllm/engine/README.md",
    ),
    pytest.mark.timeout(900),
]

RANKS = (0, 1)
GROUP = "dp:0[0-1]"
TOKENS = 12

_random = random.Random(11)  # noqa: S311
PROMPTS = [[_random.randrange(3, 512) for _ in range(4 + i)] for i in range(5)]

Outputs = list[list[list[int]]]


def serving(mode: str) -> AbstractContextManager[ServerRun]:
    return server(
        experts=True,
        graphguard=mode,
        data_parallel_size=2,
        tensor_parallel_size=1,
        api_server_count=1,
    )


def answers(run: ServerRun) -> Outputs:
    """What is answered with one rank at work, then the other, then both."""
    alone = [run.generate(PROMPTS, TOKENS, rank=rank) for rank in RANKS]
    return [*alone, run.generate(PROMPTS * 4, TOKENS)]


@pytest.fixture(scope="module")
def unguarded() -> Outputs:
    with serving("off") as run:
        return answers(run)


@pytest.fixture(scope="module")
def observed() -> Iterator[ServerRun]:
    with serving("observe") as run:
        yield run


@pytest.fixture(scope="module")
def enforced() -> Iterator[ServerRun]:
    with serving("enforce") as run:
        yield run


@pytest.mark.parametrize("mode", ["observed", "enforced"])
def test_the_tokens_are_right_and_nothing_is_found(
    mode: str, unguarded: Outputs, request: pytest.FixtureRequest
) -> None:
    run: ServerRun = request.getfixturevalue(mode)

    assert answers(run) == unguarded
    assert unguarded[0] == unguarded[1] == unguarded[2][: len(PROMPTS)]
    _, summary = black_boxes(run)
    assert (summary["first_difference"], summary["divergences"]) == (None, 0)


def test_ranks_agree_on_captures_with_collectives_of_both(observed: ServerRun) -> None:
    for rank in RANKS:
        start = f"rank {rank}: the 2 ranks of {GROUP} agree on "
        lines = [line.partition(start)[2] for line in observed.log.splitlines() if start in line]
        assert [line.partition(" calls")[0] for line in lines] == [
            "target/full: 5 graphs with 20 collective",
            "drafter/full: 5 graphs with 20 collective",
        ]
    armed = [line for line in observed.log.splitlines() if " is guarded (graphguard " in line]
    assert len(armed) == len(RANKS)
    assert all(f"compared with the ranks of {GROUP}" in line for line in armed)


def test_dummy_batches_of_an_idle_rank_are_launches_that_are_compared(observed: ServerRun) -> None:
    before = [observed.step(rank) for rank in RANKS]
    observed.generate(PROMPTS, TOKENS, rank=0)

    assert observed.step(0) > before[0]
    assert observed.step(1) == before[1]
    records, summary = black_boxes(observed)
    checks = [[r for r in records if r["event"] == "check" and r["rank"] == k] for k in RANKS]
    mine = [[(r["step"], r["role"]) for r in own if r["group"] == GROUP] for own in checks]
    assert mine[0] == mine[1]
    assert {role for _, role in mine[0]} == {"target", "drafter"}
    assert {compared["group"]: compared["ranks"] for compared in summary["compared"]} == {
        GROUP: list(RANKS)
    }


def test_a_rank_that_leaves_its_drafter_out_runs_a_dummy_and_nothing_is_found(
    observed: ServerRun,
) -> None:
    """VLLM makes up for it with data-parallel ranks: it is no fault."""
    fault = Fault(kind=FaultKind.SKIPPED_DRAFTER, rank=0, step=observed.step(0) + 3)
    observed.inject(fault)
    observed.generate(PROMPTS, TOKENS, rank=0)

    assert len(observed.trace(0).of("fault")) == 1
    _, summary = black_boxes(observed)
    assert (summary["first_difference"], summary["divergences"]) == (None, 0)


def test_a_rank_that_runs_eagerly_what_both_agreed_to_replay_is_told(
    observed: ServerRun, unguarded: Outputs
) -> None:
    fault = Fault(kind=FaultKind.EAGER_ALONE, rank=1, step=observed.step(1) + 3)
    observed.inject(fault)

    assert observed.generate(PROMPTS, TOKENS, rank=1) == unguarded[1]

    assert len(observed.trace(1).of("fault")) == 1
    assert f"of {GROUP}: rank 0: replay of target/full " in observed.log
    assert "; rank 1: eager run of target/full (no_graph)" in observed.log


def test_a_rank_that_would_run_eagerly_what_both_agreed_to_replay_is_refused(
    enforced: ServerRun,
) -> None:
    """Last: the engine is dead when it ends."""
    fault = Fault(kind=FaultKind.EAGER_ALONE, rank=1, step=enforced.step(1) + 3)
    enforced.inject(fault)

    with pytest.raises(EngineFailed) as caught:
        enforced.generate(PROMPTS, TOKENS, timeout=60, rank=1)

    assert "RanksDiverged: rank " in caught.value.log
    assert f"of {GROUP} is refused" in caught.value.log
