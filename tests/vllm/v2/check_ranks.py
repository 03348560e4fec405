"""Steps of two ranks on the V2 runner, with vLLM's own managers and the ledger of both.

The ranks are threads of one process. Data-parallel ones are made up: what the other rank puts into
vLLM's all-reduce is written there.
"""

from __future__ import annotations

import contextlib
import logging
from collections.abc import Callable, Iterator
from typing import Any
from unittest import mock

import pytest

from graphguard.agreement.group import Agreement
from graphguard.agreement.store import GroupMembers
from graphguard.environment import Mode
from graphguard.errors import GuardMismatch, RanksDiverged
from graphguard.session import Session
from graphguard.verdict import Action, Phase, Reason, Verdict
from graphguard.vllm import captures_v2, patches
from graphguard.vllm.dispatching_v2 import Request
from graphguard.vllm.options import OnMismatch, Options, Padded
from graphguard.vllm.steps_v2 import StepsV2
from tests.unit.agreement.ranks import all_at_once, memory
from tests.vllm.v2 import stand_ins


@pytest.fixture(autouse=True)
def _recorded(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    # A rank that was refused is one thread of this process, and the process is to go on.
    monkeypatch.setenv("GRAPHGUARD_WHEN_STUCK", "report")
    captures_v2.install()
    yield
    patches.unwrap_all()


class Rank:
    """The target of one rank, captured."""

    def __init__(
        self, mode: str = "enforce", graphs: str = "FULL_AND_PIECEWISE", **options: Any
    ) -> None:
        from vllm.config import CUDAGraphMode

        self.runner = stand_ins.runner(graphs)
        self.runner.capture_model()
        self.manager = self.runner.cudagraph_manager
        self.steps = StepsV2.of("target", Options(Mode(mode), **options), Session())
        self.steps.take(captures_v2.captures_of(self.manager), CUDAGraphMode)

    def run(
        self,
        reqs: int,
        query_len: int = 2,
        phase: Phase = Phase.DECODE,
        *,
        dp_size: int = 1,
        **more: Any,
    ) -> tuple[str, int]:
        """Dispatch a step as a vLLM does that looks at its shape alone."""
        from vllm.v1.worker.gpu.dp_utils import dispatch_cg_and_sync_dp

        tokens = reqs * query_len
        if "num_active_loras" in self.dispatch_parameters():
            more = {"num_active_loras": 0, **more}
        request = Request(
            dispatch_cg_and_sync_dp, self.manager, reqs, tokens, query_len, dp_size, 0, more
        )
        batch = self.steps.batch(reqs, query_len, tokens, int(phase))
        descriptor, _ = self.steps.dispatch(request, batch)
        return descriptor.cg_mode.name, descriptor.num_tokens

    def dispatch_parameters(self) -> tuple[str, ...]:
        from vllm.v1.worker.gpu.dp_utils import dispatch_cg_and_sync_dp

        names: tuple[str, ...] = dispatch_cg_and_sync_dp.__code__.co_varnames
        return names

    def graph(self, name: str) -> int:
        return [str(s) for s in self.steps.guard.signatures].index(name)


class Ranks:
    """The targets of two ranks of one process."""

    def __init__(self, mode: str = "enforce") -> None:
        store = memory()
        self.ranks = [Rank(mode) for _ in range(2)]
        self.agreements = [
            Agreement(store, GroupMembers(r, (0, 1), "tp:0[0-1]"), Mode(mode), seconds=20.0)
            for r in range(2)
        ]

        def sealing(rank: int) -> Callable[[], None]:
            return lambda: self.ranks[rank].steps.guard.seal([self.agreements[rank]], None)

        assert all_at_once([sealing(rank) for rank in range(2)]) == [None, None]

    def without_full_graphs(self, rank: int) -> None:
        """Let a rank choose as if it had no full graphs."""
        manager = self.ranks[rank].manager
        dispatch = type(manager).dispatch

        def piecewise(reqs: int, tokens: int, uniform: Any, *args: Any, **kwargs: Any) -> Any:
            return dispatch(manager, reqs, tokens, None, *args, **kwargs)

        manager.dispatch = piecewise


def test_a_step_without_a_verdict_against_it_is_vllms_own_choice() -> None:
    rank = Rank()

    assert rank.run(16) == ("FULL", 32)
    assert rank.run(15) == ("FULL", 32)
    assert rank.run(3, 4, Phase.MIXED) == ("PIECEWISE", 16)
    assert rank.run(10, 20, Phase.PREFILL) == ("NONE", 200)


def test_the_wrong_phase_is_kept_out_of_the_graph_of_decodes() -> None:
    rank, without_piecewise = Rank(), Rank(graphs="FULL_DECODE_ONLY")

    assert rank.run(3, 2, Phase.PREFILL) == ("PIECEWISE", 8)
    assert rank.steps.guard.last_verdict == Verdict(
        Action.PAD, Reason.WRONG_PHASE, rank.graph("target/piecewise 8t")
    )
    assert without_piecewise.run(3, 2, Phase.PREFILL) == ("NONE", 6)
    assert str(without_piecewise.steps.guard.last_verdict) == "eager (wrong_phase)"


def test_mismatches_run_eagerly_or_are_refused_if_asked() -> None:
    eagerly = Rank(on_mismatch=OnMismatch.EAGER)
    refusing = Rank(on_mismatch=OnMismatch.RAISE)

    assert eagerly.run(3, 2, Phase.PREFILL) == ("NONE", 6)
    with pytest.raises(GuardMismatch, match=r"target 3x2:prefill: the only graphs of this shape"):
        refusing.run(3, 2, Phase.PREFILL)
    assert refusing.run(3) == ("FULL", 8)


def test_padded_full_graphs_are_avoided_if_asked() -> None:
    rank = Rank(padded=Padded.AVOID)

    assert rank.run(15) == ("PIECEWISE", 32)
    assert rank.run(16) == ("FULL", 32)
    # Its padding is that of tokens, which attention does not see.
    assert rank.run(3, 4, Phase.MIXED) == ("PIECEWISE", 16)


def test_a_graph_that_was_not_recorded_is_not_replayed() -> None:
    rank = Rank()
    known = rank.steps._passes[""].ids
    del known[next(d for d in known if d.cg_mode.name == "FULL" and d.num_tokens == 8)]

    assert rank.run(4) == ("PIECEWISE", 8)
    assert rank.run(8) == ("FULL", 16)


def test_an_eager_step_that_vllm_does_not_dispatch_is_published() -> None:
    ranks = Ranks()

    for rank in ranks.ranks:
        assert rank.run(16, need_eager=True) == ("NONE", 32)
        assert str(rank.steps.guard.last_verdict) == "eager (no_graph)"
    assert ranks.ranks[0].run(16) == ranks.ranks[1].run(16) == ("FULL", 32)
    assert [agreement.num_divergences for agreement in ranks.agreements] == [0, 0]


@pytest.mark.parametrize("first", [0, 1])
def test_the_second_rank_follows_the_first(first: int) -> None:
    ranks = Ranks()
    ranks.without_full_graphs(1)

    decided = ranks.ranks[first].run(15)
    assert ranks.ranks[1 - first].run(15) == decided

    verdict = ranks.ranks[1 - first].steps.guard.last_verdict
    assert verdict is not None
    assert verdict.reason is Reason.ADOPTED
    assert decided == (("FULL", 32) if first == 0 else ("PIECEWISE", 32))


def test_a_rank_that_cannot_follow_is_refused() -> None:
    ranks = Ranks()
    ranks.ranks[0].run(16)

    with pytest.raises(RanksDiverged, match="step 1 of tp:0") as refused:
        ranks.ranks[1].run(15, 1, Phase.PREFILL)

    assert refused.value.ranks == (0,)


def test_observe_reports_what_differs_and_changes_nothing() -> None:
    ranks = Ranks("observe")
    ranks.without_full_graphs(1)

    assert ranks.ranks[0].run(15) == ("FULL", 32)
    assert ranks.ranks[1].run(15) == ("PIECEWISE", 32)

    (divergence,) = ranks.agreements[1].divergences
    assert divergence.text == (
        "ranks differ at step 1 of tp:0[0-1]: rank 0: replay of target/full 16x2 for 15x2; "
        "rank 1: replay of target/piecewise 32t for 15x2"
    )


def test_a_quarantined_graph_is_used_by_no_rank_from_the_same_step() -> None:
    ranks = Ranks()
    first = ranks.ranks[0]

    since = first.steps.guard.quarantine(first.graph("target/full 16x2"))
    assert since is not None
    seen = [[rank.run(15)[0] for rank in ranks.ranks] for _ in range(since + 2)]

    assert seen[: since - 1] == [["FULL", "FULL"]] * (since - 1)
    assert seen[since:] == [["PIECEWISE", "PIECEWISE"]] * 2


class _DataParallel:
    """Stands for the group of two data-parallel ranks, of which the other one runs decodes."""

    cpu_group = None

    def __init__(self, reqs: int) -> None:
        self.reqs = reqs
        self.mine: list[int] = []

    def cpu_all_reduce_(self, tensor: Any, group: Any = None) -> None:
        from vllm.config import CUDAGraphMode

        self.mine = tensor[:, 0].tolist()
        other = [self.reqs * 2, CUDAGraphMode.FULL.value, 2, 2, 0, self.reqs, 0]
        for row, value in zip(tensor, other, strict=False):
            row[1] = value


@contextlib.contextmanager
def data_parallel(reqs: int) -> Iterator[_DataParallel]:
    """Let vLLM agree with another data-parallel rank that runs this many requests."""
    from vllm.v1.worker.gpu import dp_utils

    group = _DataParallel(reqs)
    distributed = dp_utils.__dict__.get("dist", dp_utils.torch.distributed)
    with (
        mock.patch.object(dp_utils, "get_dp_group", return_value=group),
        mock.patch.object(distributed, "all_reduce", group.cpu_all_reduce_),
    ):
        yield group


@pytest.mark.parametrize(("phase", "expected"), [(0, ("FULL", 16)), (1, ("PIECEWISE", 16))])
def test_data_parallel_ranks_all_keep_out_of_the_graphs_of_decodes(
    phase: int, expected: tuple[str, int]
) -> None:
    rank = Rank()
    with data_parallel(8) as group:
        assert rank.run(4, 2, Phase(phase), dp_size=2) == expected

    # What the other rank sees is a batch that is not uniform: it keeps out of them too.
    assert group.mine[:3] == [8, 2, 2] if phase == 0 else group.mine[:3] == [8, 1, 0]


@pytest.mark.parametrize("mode", ["observe", "enforce"])
def test_what_counts_is_the_graph_that_data_parallel_ranks_have_settled_on(mode: str) -> None:
    rank = Rank(mode)

    with data_parallel(16):
        assert rank.run(4, dp_size=2) == ("FULL", 32)

    verdict = rank.steps.guard.last_verdict
    assert verdict == Verdict(Action.PAD, Reason.PADDED, rank.graph("target/full 16x2"))
    assert rank.steps.padded is not None
    assert tuple(rank.steps.padded) == (4, 16, 8, 32, 2)


def test_ranks_that_have_settled_on_different_graphs_are_refused_and_not_changed() -> None:
    ranks = Ranks()
    with data_parallel(8):
        assert ranks.ranks[0].run(4, dp_size=2) == ("FULL", 16)

    with data_parallel(16), pytest.raises(RanksDiverged, match="step 1 of tp:0") as refused:
        ranks.ranks[1].run(4, dp_size=2)

    assert refused.value.ranks == (0,)


def test_a_rank_without_data_parallel_ranks_follows_again() -> None:
    ranks = Ranks()
    with data_parallel(16):
        assert [rank.run(4, dp_size=2) for rank in ranks.ranks] == [("FULL", 32)] * 2
    ranks.without_full_graphs(1)

    assert ranks.ranks[0].run(15) == ("FULL", 32)
    assert ranks.ranks[1].run(15) == ("FULL", 32)


def test_observe_compares_what_data_parallel_ranks_have_settled_on() -> None:
    ranks = Ranks("observe")
    with data_parallel(8):
        ranks.ranks[0].run(4, dp_size=2)
    with data_parallel(16):
        assert ranks.ranks[1].run(4, dp_size=2) == ("FULL", 32)

    (divergence,) = ranks.agreements[1].divergences
    assert divergence.text == (
        "ranks differ at step 1 of tp:0[0-1]: rank 0: replay of target/full 8x2 for 4x2; "
        "rank 1: replay of target/full 16x2 for 4x2"
    )


def test_eager_steps_of_data_parallel_ranks_are_published_as_such() -> None:
    ranks = Ranks()

    with data_parallel(16):
        for rank in ranks.ranks:
            assert rank.run(4, dp_size=2, need_eager=True) == ("NONE", 8)
            assert str(rank.steps.guard.last_verdict) == "eager (no_graph)"


def test_a_graph_that_was_settled_on_against_a_quarantine_is_said_and_published(
    caplog: pytest.LogCaptureFixture,
) -> None:
    rank = Rank()
    rank.steps.guard.quarantined.add(rank.graph("target/full 16x2"))

    with data_parallel(16), caplog.at_level(logging.WARNING, "graphguard"):
        assert rank.run(4, dp_size=2) == ("FULL", 32)

    verdict = rank.steps.guard.last_verdict
    assert verdict is not None
    assert verdict.graph == rank.graph("target/full 16x2")
    assert "data-parallel ranks have settled on" in caplog.text


def test_a_batch_that_is_held_back_is_passed_on_as_one_that_is_not_of_decodes() -> None:
    passed: dict[str, Any] = {}

    def original(
        manager: Any, reqs: int, tokens: int, uniform: Any, *ranks: int, **more: Any
    ) -> tuple[None, None]:
        passed.update(more, uniform=uniform, ranks=ranks)
        return None, None

    more = {"max_query_len": 2, "uniform_decode": True, "num_active_loras": 1}
    request = Request(original, None, 4, 8, 2, 2, 1, more)

    request.answered_by(None, uniform=False, alone=False)
    assert passed == {
        "max_query_len": None,
        "uniform_decode": False,
        "num_active_loras": 1,
        "uniform": None,
        "ranks": (2, 1),
    }
    request.answered_by(None, uniform=True, alone=True)
    assert passed == more | {"uniform": 2, "ranks": (1, 0)}
