"""Steps of the V1 runner, with vLLM's own dispatcher and the ledger of two ranks."""

from __future__ import annotations

import functools
import logging
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest

from graphguard.agreement.group import Agreement
from graphguard.agreement.store import GroupMembers
from graphguard.environment import Mode
from graphguard.errors import GuardMismatch, RanksDiverged
from graphguard.verdict import Action, Phase, Reason, Verdict
from graphguard.vllm.options import OnMismatch, Padded
from graphguard.vllm.steps_v1 import StepsV1
from tests.unit.agreement.ranks import all_at_once, memory
from tests.vllm import dispatchers


def dispatched(made: StepsV1, dispatcher: Any, reqs: int, query_len: int, phase: Phase) -> Any:
    """Run one step through a dispatcher; return mode and tokens, as vLLM gets them."""
    uniform = query_len == dispatcher.uniform_decode_query_len
    arguments = {"num_tokens": reqs * query_len, "uniform_decode": uniform}
    sizes = reqs, query_len, reqs * query_len, int(phase)
    again = functools.partial(dispatcher.dispatch, **arguments)
    mode, descriptor = made.dispatched(sizes, again(), again)
    return mode.name, descriptor.num_tokens


@pytest.fixture(autouse=True)
def not_ended(monkeypatch: pytest.MonkeyPatch) -> None:
    """Both ranks are this process, which must outlive a refusal."""
    monkeypatch.setenv("GRAPHGUARD_WHEN_STUCK", "report")


@pytest.fixture
def dispatcher() -> Any:
    return dispatchers.dispatcher()


@pytest.mark.parametrize("mode", ["observe", "enforce"])
def test_the_seeds_step_is_vllms_own_choice(dispatcher: Any, mode: str) -> None:
    made = dispatchers.steps(dispatcher, mode)

    assert dispatched(made, dispatcher, 15, 2, Phase.DECODE) == ("FULL", 32)
    assert str(made.guard.last_verdict) == "pad (padded)"
    assert dispatched(made, dispatcher, 16, 2, Phase.DECODE) == ("FULL", 32)
    assert str(made.guard.last_verdict) == "replay (exact)"


@pytest.mark.parametrize("phase", [Phase.PREFILL, Phase.MIXED])
def test_a_prefill_in_the_verify_graph_goes_to_a_piecewise_graph(
    dispatcher: Any, phase: Phase
) -> None:
    made = dispatchers.steps(dispatcher)

    assert dispatched(made, dispatcher, 3, 2, phase) == ("PIECEWISE", 8)
    assert made.guard.last_verdict is not None
    assert made.guard.last_verdict.reason is Reason.WRONG_PHASE
    assert made.guard.last_verdict.action is Action.PAD


def test_a_prefill_in_the_verify_graph_runs_eagerly_where_there_is_no_piecewise_graph() -> None:
    dispatcher = dispatchers.dispatcher("FULL_DECODE_ONLY")
    made = dispatchers.steps(dispatcher)

    assert dispatched(made, dispatcher, 4, 2, Phase.PREFILL) == ("NONE", 8)
    assert str(made.guard.last_verdict) == "eager (wrong_phase)"


def test_observe_says_once_that_a_prefill_replays_the_verify_graph(
    dispatcher: Any, caplog: pytest.LogCaptureFixture
) -> None:
    made = dispatchers.steps(dispatcher, "observe")

    with caplog.at_level(logging.WARNING, "graphguard"):
        for _ in range(2):
            assert dispatched(made, dispatcher, 4, 2, Phase.PREFILL) == ("FULL", 8)

    assert [record.message for record in caplog.records] == [
        "rank 0: vLLM chose target/full 4x2 for 4x2:prefill: the only graphs of this shape were "
        "recorded for another phase; this is said once"
    ]


def test_a_fault_of_the_guard_does_not_reach_the_engine_in_observe(
    dispatcher: Any, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    def broken(*_: Any) -> None:
        raise RuntimeError("no such thing")

    made = dispatchers.steps(dispatcher, "observe")
    monkeypatch.setattr(made.guard, "agree", broken)

    with caplog.at_level(logging.WARNING, "graphguard"):
        assert dispatched(made, dispatcher, 15, 2, Phase.DECODE) == ("FULL", 32)

    assert "is not checked: RuntimeError('no such thing')" in caplog.text


def test_mismatches_run_eagerly_or_are_refused_if_asked(dispatcher: Any) -> None:
    eagerly = dispatchers.steps(dispatcher, on_mismatch=OnMismatch.EAGER)
    refusing = dispatchers.steps(dispatcher, on_mismatch=OnMismatch.RAISE)

    assert dispatched(eagerly, dispatcher, 3, 2, Phase.PREFILL) == ("NONE", 6)
    with pytest.raises(GuardMismatch, match=r"target 3x2:prefill: the only graphs of this shape"):
        dispatched(refusing, dispatcher, 3, 2, Phase.PREFILL)
    assert dispatched(refusing, dispatcher, 3, 2, Phase.DECODE) == ("FULL", 8)


def test_padded_replays_are_avoided_if_asked(dispatcher: Any) -> None:
    made = dispatchers.steps(dispatcher, padded=Padded.AVOID)

    assert dispatched(made, dispatcher, 15, 2, Phase.DECODE) == ("PIECEWISE", 32)
    assert dispatched(made, dispatcher, 16, 2, Phase.DECODE) == ("FULL", 32)
    # A piecewise graph reads no metadata of padded slots.
    assert dispatched(made, dispatcher, 5, 5, Phase.MIXED) == ("PIECEWISE", 32)


def test_a_graph_that_was_not_recorded_is_not_replayed(dispatcher: Any) -> None:
    made = dispatchers.steps(dispatcher)
    del made._full_graphs[8, 4, 0]

    assert dispatched(made, dispatcher, 4, 2, Phase.DECODE) == ("PIECEWISE", 8)
    assert dispatched(made, dispatcher, 8, 2, Phase.DECODE) == ("FULL", 16)


class Ranks:
    """The targets of two ranks of one process, each with a dispatcher of its own."""

    def __init__(self, mode: str, **options: Any) -> None:
        store = memory()
        self.dispatchers = [dispatchers.dispatcher() for _ in range(2)]
        self.steps = [dispatchers.steps(d, mode, **options) for d in self.dispatchers]
        self.agreements = [
            Agreement(store, GroupMembers(r, (0, 1), "tp:0[0-1]"), Mode(mode), seconds=20.0)
            for r in range(2)
        ]

        def sealing(rank: int) -> Any:
            return lambda: self.steps[rank].guard.seal([self.agreements[rank]], None)

        results = all_at_once([sealing(rank) for rank in range(2)])
        assert results == [None, None]

    def run(self, rank: int, reqs: int, query_len: int = 2, phase: Phase = Phase.DECODE) -> Any:
        return dispatched(self.steps[rank], self.dispatchers[rank], reqs, query_len, phase)


def no_full_graphs(dispatcher: Any) -> None:
    """Let a rank choose as if it had no full graphs."""
    from vllm.config import CUDAGraphMode

    dispatcher.cudagraph_keys[CUDAGraphMode.FULL].clear()


def test_ranks_that_choose_alike_see_nothing() -> None:
    ranks = Ranks("enforce")

    for reqs in (15, 16, 3):
        assert ranks.run(0, reqs) == ranks.run(1, reqs)

    assert [agreement.num_divergences for agreement in ranks.agreements] == [0, 0]


@pytest.mark.parametrize("mode", ["observe", "enforce"])
def test_the_padding_of_a_step_that_is_taken_in_one_call_is_looked_at(mode: str) -> None:
    ranks = Ranks(mode)
    (steps, _) = ranks.steps
    assert steps.guard.take is not None

    ranks.run(0, 15)
    assert steps.padded is not None
    descriptor, sizes = steps.padded
    assert (descriptor.num_reqs, sizes) == (16, (15, 2, 30, int(Phase.DECODE)))
    ranks.run(0, 16)
    assert steps.padded is None


def test_agreeing_ranks_avoid_padded_replays_if_asked() -> None:
    ranks = Ranks("enforce", padded=Padded.AVOID)

    assert [ranks.run(rank, 15) for rank in range(2)] == [("PIECEWISE", 32)] * 2
    assert [ranks.run(rank, 16) for rank in range(2)] == [("FULL", 32)] * 2


def test_the_last_token_of_a_prompt_is_a_decode_and_a_longer_rest_is_not(dispatcher: Any) -> None:
    made = dispatchers.steps(dispatcher)
    made.read_phases_of(
        SimpleNamespace(
            num_computed_tokens_cpu=np.array([7, 6], dtype=np.int32),
            num_prompt_tokens=np.array([8, 8], dtype=np.int32),
        )
    )

    assert Phase(made.phase(1)) is Phase.DECODE
    assert Phase(made.phase(2)) is Phase.MIXED


@pytest.mark.parametrize("first", [0, 1])
def test_the_second_rank_follows_the_first(first: int) -> None:
    ranks = Ranks("enforce")
    no_full_graphs(ranks.dispatchers[1])

    decided = ranks.run(first, 15)
    assert ranks.run(1 - first, 15) == decided

    verdict = ranks.steps[1 - first].guard.last_verdict
    assert verdict == Verdict(Action.PAD, Reason.ADOPTED, verdict.graph if verdict else None)
    assert decided == (("FULL", 32) if first == 0 else ("PIECEWISE", 32))


def test_a_rank_that_cannot_follow_is_refused() -> None:
    ranks = Ranks("enforce")
    ranks.run(0, 16)

    with pytest.raises(RanksDiverged, match="step 1 of tp:0") as refused:
        ranks.run(1, 15, 1, Phase.PREFILL)

    assert refused.value.ranks == (0,)


def test_observe_reports_what_differs_and_changes_nothing() -> None:
    ranks = Ranks("observe")
    no_full_graphs(ranks.dispatchers[1])

    assert ranks.run(0, 15) == ("FULL", 32)
    assert ranks.run(1, 15) == ("PIECEWISE", 32)

    (divergence,) = ranks.agreements[1].divergences
    assert divergence.text == (
        "ranks differ at step 1 of tp:0[0-1]: rank 0: replay of target/full 16x2 for 15x2; "
        "rank 1: replay of target/piecewise 32t for 15x2"
    )


def test_a_quarantined_graph_is_used_by_no_rank_from_the_same_step() -> None:
    ranks = Ranks("enforce")
    graph = next(
        graph
        for graph, signature in enumerate(ranks.steps[0].guard.signatures)
        if str(signature) == "target/full 16x2"
    )

    since = ranks.steps[0].guard.quarantine(graph)
    assert since is not None
    seen = [[ranks.run(rank, 15)[0] for rank in range(2)] for _ in range(since + 2)]

    assert seen[: since - 1] == [["FULL", "FULL"]] * (since - 1)
    assert seen[since:] == [["PIECEWISE", "PIECEWISE"]] * 2
    assert seen[since - 1][0] == seen[since - 1][1]
