"""vLLM's CPU engine with emulated graphs does what the eager engine does, and really replays.

Each engine is started once and serves several tests. The last test leaves its engine dead.
"""

from __future__ import annotations

import importlib.util
import random
from collections.abc import Iterator

import pytest

from tests.vllm.engine import (
    Emulation,
    EngineFailed,
    EngineRun,
    Fault,
    FaultKind,
    Piecewise,
    engine,
    server,
)

pytestmark = [
    pytest.mark.skipif(
        importlib.util.find_spec("vllm") is None,
        reason="vLLM is not installed here: see tests/vllm/engine/README.md",
    ),
    pytest.mark.timeout(900),
]

RANKS = (0, 1)
SIZES = (2, 4, 8, 16, 32)
TOKENS = 24
STEP_SECONDS = 15

_random = random.Random(4)  # noqa: S311


def _prompt(length: int) -> list[int]:
    return [_random.randrange(3, 512) for _ in range(length)]


# 15 requests × 2 tokens are padded to the graph of 16 × 2.
PADDED = [_prompt(_random.randrange(3, 40)) for _ in range(15)]
# As long as the query of a step that verifies one draft.
FRESH = [_prompt(2) for _ in range(3)]
LONG = [_prompt(length) for length in (300, 700, 1000)]
MIXES = (PADDED, FRESH, LONG)

Outputs = list[list[list[int]]]
Drafts = dict[int, list[int]]


class Reference:
    """What the eager engine answers."""

    def __init__(self, run: EngineRun) -> None:
        self.outputs: Outputs = [run.generate(mix, TOKENS) for mix in MIXES]
        self.drafts: Drafts = run.trace(0).drafts()
        self.accepted = run.metrics()["vllm:spec_decode_num_accepted_tokens"]
        self.replays = [len(run.trace(rank).of("replay")) for rank in RANKS]


class Replayed:
    """An engine with graphs, and what it answers to the same prompts."""

    def __init__(self, run: EngineRun) -> None:
        self.run = run
        self.outputs: Outputs = [run.generate(mix, TOKENS) for mix in MIXES]
        self.traces = [run.trace(rank) for rank in RANKS]


@pytest.fixture(scope="module")
def eager() -> Reference:
    with engine(emulate=False) as run:
        return Reference(run)


@pytest.fixture(scope="module")
def graphs() -> Iterator[Replayed]:
    """Target in full graphs, drafter in graphs of its own."""
    with engine(emulate=Emulation(mode="FULL_AND_PIECEWISE"), step_seconds=STEP_SECONDS) as run:
        yield Replayed(run)


@pytest.fixture(scope="module")
def breakable() -> Iterator[Replayed]:
    """The same, with graphs that are broken at attention where they are piecewise."""
    with engine(emulate=Emulation(piecewise=Piecewise.BREAKABLE)) as run:
        yield Replayed(run)


def test_the_reference_runs_no_graph_and_its_drafts_are_sometimes_accepted(
    eager: Reference,
) -> None:
    proposed = sum(len(drafts) for drafts in eager.drafts.values())

    assert eager.replays == [0, 0]
    assert 0.2 * proposed < eager.accepted < 0.95 * proposed


@pytest.mark.parametrize("kind", ["graphs", "breakable"])
def test_replayed_graphs_give_the_tokens_of_the_eager_engine(
    kind: str, eager: Reference, request: pytest.FixtureRequest
) -> None:
    replayed: Replayed = request.getfixturevalue(kind)

    assert replayed.outputs == eager.outputs


@pytest.mark.parametrize("kind", ["graphs", "breakable"])
def test_replayed_drafter_graphs_propose_what_the_eager_drafter_does(
    kind: str, eager: Reference, request: pytest.FixtureRequest
) -> None:
    replayed: Replayed = request.getfixturevalue(kind)

    assert [trace.drafts() for trace in replayed.traces] == [eager.drafts] * len(RANKS)


def test_every_graph_is_captured_once_before_the_first_step_on_every_rank(
    graphs: Replayed,
) -> None:
    target = {("target", "FULL", size, size // 2) for size in SIZES}
    drafter = {("drafter", "PIECEWISE", size, None) for size in SIZES}

    for trace in graphs.traces:
        assert trace.counts("capture") == dict.fromkeys(target | drafter, 1)
        assert {event.step for event in trace.of("capture")} == {0}


def test_graphs_hold_the_collectives_and_the_attention_of_the_model(graphs: Replayed) -> None:
    # One all-reduce for the embedding, and two for each layer: two layers, and one of the drafter.
    expected = {"target": (5, 2), "drafter": (3, 1)}

    for trace in graphs.traces:
        for event in trace.of("capture"):
            operators = event.operators or {}
            seen = operators["_C::shm_allreduce"], operators["vllm::unified_attention_with_output"]
            assert seen == expected[event.role]


def test_fifteen_requests_replay_the_graph_of_sixteen_on_every_rank(graphs: Replayed) -> None:
    for trace in graphs.traces:
        padded = {e.step for e in trace.of("step") if (e.num_reqs, e.num_tokens) == (15, 30)}
        replays = [e for e in trace.of("replay") if e.step in padded]

        assert len(padded) > 5
        assert {(e.role, e.num_tokens, e.num_reqs) for e in replays} == {
            ("target", 32, 16),
            ("drafter", 32, None),
        }
        assert len(replays) == 2 * len(padded)


def test_a_breakable_graph_is_replayed_in_pieces_between_eager_attention(
    breakable: Replayed,
) -> None:
    for trace in breakable.traces:
        captured = trace.counts("capture")
        # One piece more than there are breaks: attention of each layer.
        assert captured["drafter", "PIECEWISE", 32, None] == 2
        assert captured["target", "PIECEWISE", 32, None] == 3
        assert trace.counts("replay")["drafter", "PIECEWISE", 32, None] > 0
        for event in trace.of("capture"):
            if event.mode == "PIECEWISE":
                assert "vllm::unified_attention_with_output" not in (event.operators or {})


def test_a_prefill_as_long_as_a_verified_draft_replays_the_graph_for_decoding(
    graphs: Replayed,
) -> None:
    """A known bug of vLLM (wrong phase). With plain attention the tokens are right all the same."""
    before = graphs.run.step(0)
    graphs.run.generate([FRESH[0]], max_tokens=1)

    for rank in RANKS:
        prefill = [e for e in graphs.run.trace(rank).events if e.step == before + 1]
        assert [(e.num_reqs, e.num_tokens) for e in prefill if e.kind == "step"] == [(1, 2)]
        replays = [(e.mode, e.num_tokens, e.uniform) for e in prefill if e.kind == "replay"]
        assert replays[0] == ("FULL", 2, True)


def test_a_served_engine_with_an_eager_drafter_gives_the_tokens_of_the_eager_engine(
    eager: Reference,
) -> None:
    with server(emulate=Emulation(mode="FULL_DECODE_ONLY")) as run:
        outputs = [run.generate(mix, TOKENS) for mix in MIXES]
        traces = [run.trace(rank) for rank in RANKS]

    assert outputs == eager.outputs
    for trace in traces:
        # Requests come one by one: how many are in a batch differs from run to run.
        assert len(trace.of("replay", "target")) > 5
        assert trace.of("replay", "drafter") == []


def test_a_padded_slot_that_is_live_damages_the_request_whose_slot_it_is(
    graphs: Replayed,
) -> None:
    """What it leaves in the cache may be NaN, which stays: requests that come later suffer too."""
    expected = graphs.outputs[0]
    # In several steps: what one of them has damaged may be a rejected draft, which is written anew.
    graphs.run.inject(
        Fault(kind=FaultKind.LIVE_PADDING, rank=0, num_reqs=15, num_tokens=30, times=6)
    )

    damaged = graphs.run.generate(PADDED, TOKENS)

    assert [now != was for now, was in zip(damaged, expected, strict=True)].count(True) == 1


def test_a_rank_that_leaves_out_an_all_reduce_of_a_replay_hangs_the_engine(
    graphs: Replayed,
) -> None:
    """Last: the engine is dead when it ends."""
    before = [len(graphs.run.trace(rank).of("fault")) for rank in RANKS]
    graphs.run.inject(Fault(kind=FaultKind.SKIPPED_ALL_REDUCE, num_reqs=15, num_tokens=30))

    with pytest.raises(EngineFailed) as caught:
        graphs.run.generate(PADDED, TOKENS, timeout=4 * STEP_SECONDS)

    assert caught.value.kind == "EngineDeadError"
    assert "timed out" in caught.value.log
    after = [len(graphs.run.trace(rank).of("fault")) for rank in RANKS]
    assert after == [before[0], before[1] + 1]
