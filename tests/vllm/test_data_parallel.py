"""Launches of data-parallel ranks: what is compared, and what may differ between them.

The ranks are threads of one process with a ledger of their own; ``test_data_parallel_engine.py``
has two real ones in a running engine.
"""

from __future__ import annotations

import logging
import threading
from collections.abc import Callable
from types import SimpleNamespace
from typing import Any

import pytest
from msgspec import structs

from graphguard.agreement import members
from graphguard.agreement.group import Agreement
from graphguard.agreement.store import GroupMembers
from graphguard.batch import BatchDescriptor
from graphguard.environment import Mode
from graphguard.errors import AgreementError, RanksDiverged
from graphguard.session import Session
from graphguard.signature import CollectiveCall, Signature
from graphguard.vllm import armed, data_parallel_v1, worker_guard
from graphguard.vllm.data_parallel import DataParallelSteps
from graphguard.vllm.model_guard import ModelGuard
from graphguard.vllm.options import Options
from graphguard.vllm.worker_guard import WorkerGuard
from tests.unit.agreement.ranks import all_at_once, memory
from tests.vllm import dispatchers
from tests.vllm.v2.versions import VERSIONS, check

NAME = "dp:0[0-1]"


@pytest.mark.parametrize("version", VERSIONS)
def test_ranks_are_compared_where_the_version_couples_them(version: str) -> None:
    assert "passed" in check(version, "data_parallel")


class Ranks:
    """The launches of two data-parallel ranks with the same graphs, unless one lacks some."""

    def __init__(self, mode: str, lacking: int = 0) -> None:
        store = memory()
        self.agreements = [
            Agreement(store, GroupMembers(rank, (0, 1), NAME), Mode(mode), seconds=20.0)
            for rank in range(2)
        ]
        self.steps = [DataParallelSteps(agreement, None) for agreement in self.agreements]
        self.guards = [
            [dispatchers.steps(dispatchers.dispatcher(), mode, role).guard for role in ROLES]
            for _ in range(2)
        ]
        target = self.guards[1][0]
        del target.signatures[len(target.signatures) - lacking :]

        def sealing(rank: int) -> Callable[[], bool]:
            return lambda: self.steps[rank].seal(self.guards[rank])

        self.sealed = all_at_once([sealing(rank) for rank in range(2)])

    def launch(self, rank: int, role: str, mode: str, num_tokens: int, padded: int) -> None:
        self.steps[rank].launching(role, mode, num_tokens, padded)

    def texts(self, rank: int) -> list[str]:
        return [divergence.text for divergence in self.agreements[rank].divergences]


ROLES = ("target", "drafter")


@pytest.fixture(autouse=True)
def not_ended(monkeypatch: pytest.MonkeyPatch) -> None:
    """Both ranks are this process, which must outlive a refusal."""
    monkeypatch.setenv("GRAPHGUARD_WHEN_STUCK", "report")


@pytest.fixture(params=["observe", "enforce"])
def ranks(request: pytest.FixtureRequest) -> Ranks:
    made = Ranks(request.param)
    assert made.sealed == [True, True]
    return made


def test_batches_may_differ_where_graph_and_padded_tokens_are_the_same(ranks: Ranks) -> None:
    # The second rank runs a dummy batch.
    ranks.launch(0, "target", "FULL", 30, 32)
    ranks.launch(1, "target", "FULL", 2, 32)
    ranks.launch(1, "drafter", "PIECEWISE", 32, 32)
    ranks.launch(0, "drafter", "PIECEWISE", 2, 32)

    assert [agreement.num_divergences for agreement in ranks.agreements] == [0, 0]


def test_tokens_may_differ_where_no_graph_is_launched(ranks: Ranks) -> None:
    ranks.launch(0, "target", "NONE", 700, 700)
    ranks.launch(1, "target", "NONE", 2, 2)

    assert [agreement.num_divergences for agreement in ranks.agreements] == [0, 0]


@pytest.mark.parametrize(
    ("first", "second", "words"),
    [
        (
            ("target", "FULL", 30, 32),
            ("target", "NONE", 32, 32),
            "rank 0: replay of target/full 32t for 30t; rank 1: eager run of target/full "
            "(no_graph)",
        ),
        (
            ("target", "FULL", 16, 16),
            ("target", "PIECEWISE", 16, 16),
            "rank 0: replay of target/full 16t; rank 1: replay of target/piecewise 16t",
        ),
        (
            ("target", "FULL", 16, 16),
            ("target", "FULL", 16, 32),
            "rank 0: replay of target/full 16t; rank 1: replay of target/full 32t for 16t",
        ),
        (
            ("drafter", "NONE", 16, 16),
            ("target", "NONE", 16, 16),
            "rank 0: eager run of drafter/full (no_graph); rank 1: eager run of target/full "
            "(no_graph)",
        ),
    ],
)
def test_ranks_that_launch_different_things_are_named(
    first: tuple[str, str, int, int], second: tuple[str, str, int, int], words: str
) -> None:
    observed, enforced = Ranks("observe"), Ranks("enforce")
    for ranks in (observed, enforced):
        ranks.launch(0, *first)

    observed.launch(1, *second)
    with pytest.raises(RanksDiverged, match="step 1 of dp:0") as refused:
        enforced.launch(1, *second)

    assert observed.texts(1) == [f"ranks differ at step 1 of {NAME}: {words}"]
    assert refused.value.ranks == (0,)
    assert words in str(refused.value)


def test_nothing_is_launched_any_more_after_a_refusal() -> None:
    ranks = Ranks("enforce")
    ranks.launch(0, "target", "FULL", 16, 16)
    with pytest.raises(RanksDiverged):
        ranks.launch(1, "target", "FULL", 16, 32)

    with pytest.raises(RanksDiverged):
        ranks.launch(0, "drafter", "FULL", 16, 16)


def test_captures_that_differ_are_told() -> None:
    observed, enforced = Ranks("observe", lacking=1), Ranks("enforce", lacking=1)

    assert observed.sealed == [True, True]
    assert all("target/full" in text for rank in range(2) for text in observed.texts(rank))
    assert len(observed.texts(0)) == 1
    assert [type(result) for result in enforced.sealed] == [AgreementError] * 2


def call(group: str, rank: int) -> CollectiveCall:
    return CollectiveCall("all_reduce", 64, "float32", "sum", None, None, group, 2, rank)


@pytest.mark.parametrize("count", [64, 65])
def test_calls_within_tensor_parallel_groups_may_be_on_other_ranks(count: int) -> None:
    """Each of the two has a TP group of its own, and both one DP group."""
    store, ranks = memory(), (0, 2)
    steps = []
    for place in range(2):
        mine = GroupMembers(place, ranks, "dp:0[0,2]")
        agreement = Agreement(store, mine, Mode.OBSERVE, seconds=20.0)
        steps.append(DataParallelSteps(agreement, None))

    def sealing(place: int) -> Callable[[], bool]:
        mine = ("tp:0[0-1]", "tp:0[2-3]")[place]
        shared = structs.replace(call("dp:0[0,2]", place), count=(64, count)[place])
        guard = ModelGuard("target", Mode.OBSERVE, Session())
        signature = Signature(
            guard.key, BatchDescriptor.of(16, 2), collectives=(call(mine, 0), shared)
        )
        guard.add(signature, SimpleNamespace(mode="FULL", descriptor=None))
        return lambda: steps[place].seal([guard])

    assert all_at_once([sealing(place) for place in range(2)]) == [True, True]

    expected = 0 if count == 64 else 1
    assert [made.agreement.num_divergences for made in steps] == [expected] * 2


def test_a_fault_of_the_guard_does_not_reach_the_engine_in_observe(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    ranks = Ranks("observe")

    with caplog.at_level(logging.WARNING, "graphguard"):
        for _ in range(2):
            ranks.launch(0, "target", "NO SUCH MODE", 2, 2)

    (line,) = [r.message for r in caplog.records if "not compared" in r.message]
    assert line.startswith(f"launches of target are not compared with the ranks of {NAME}: ")


class Launches:
    """Stands for the launches of a rank, of which it keeps what it is told."""

    def __init__(self) -> None:
        self.told: list[tuple[str, str, int, int]] = []
        self.failed: list[str] = []

    def launching(self, role: str, mode: str, num_tokens: int, padded: int) -> None:
        self.told.append((role, mode, num_tokens, padded))

    def not_compared(self, role: str, error: Exception) -> None:
        self.failed.append(f"{role}: {error}")


@pytest.fixture
def launches(monkeypatch: pytest.MonkeyPatch) -> Launches:
    found = Launches()
    worker = SimpleNamespace(data_parallel=found)
    monkeypatch.setattr(worker_guard, "_worker", worker)
    return found


def target(result: Any) -> Any:
    determine = data_parallel_v1._of_target(lambda runner, num_tokens, **more: result)
    return determine(None, num_tokens=30, num_reqs=15)


def test_what_the_v1_runner_has_settled_on_is_published(launches: Launches) -> None:
    from vllm.config import CUDAGraphMode
    from vllm.forward_context import BatchDescriptor

    descriptor = BatchDescriptor(32, 16, uniform=True)
    agreed = (CUDAGraphMode.FULL, descriptor, False, [32, 32], None)

    assert target(agreed) is agreed
    drafter = data_parallel_v1._of_drafter(lambda proposer, num_tokens, **more: more["result"])
    drafter(None, 30, result=(CUDAGraphMode.PIECEWISE, 32, [32, 32]))

    assert launches.told == [("target", "FULL", 30, 32), ("drafter", "PIECEWISE", 30, 32)]


def test_what_ranks_have_not_agreed_on_is_not_published(launches: Launches) -> None:
    from vllm.config import CUDAGraphMode
    from vllm.forward_context import BatchDescriptor
    from vllm.v1.worker import dp_utils

    target((CUDAGraphMode.FULL, BatchDescriptor(32, 16, uniform=True), False, None, None))
    with dp_utils.skip_dp_coordination():
        target((CUDAGraphMode.FULL, BatchDescriptor(32, 16, uniform=True), False, [32], None))

    assert launches.told == []


def test_an_answer_of_vllm_that_is_not_known_is_said_and_passed_on(launches: Launches) -> None:
    assert target(None) is None

    assert launches.told == []
    assert len(launches.failed) == 1


def guarded(parallel: SimpleNamespace, *, experts: bool, everywhere: bool = True) -> WorkerGuard:
    """Return the guard of a worker after it was told of its data-parallel ranks."""
    worker = WorkerGuard(Options(Mode.OBSERVE), Session())
    config = SimpleNamespace(parallel_config=parallel, model_config=SimpleNamespace(is_moe=experts))
    worker._seal_data_parallel(SimpleNamespace(vllm_config=config), None, everywhere=everywhere)
    return worker


@pytest.mark.parametrize(
    ("parallel", "experts", "why_not"),
    [
        (SimpleNamespace(data_parallel_size=2), False, "a dense model run on their own"),
        (SimpleNamespace(data_parallel_size=2, enable_elastic_ep=True), True, "changes its ranks"),
    ],
)
def test_ranks_that_are_left_alone_are_said_in_the_workers_line(
    parallel: SimpleNamespace, experts: bool, why_not: str
) -> None:
    worker = guarded(parallel, experts=experts)

    assert worker.data_parallel is None
    assert "; not compared with data-parallel ranks: " in worker.line()
    assert why_not in worker.line()


def test_a_rank_that_is_in_a_step_does_not_wait_for_others_to_compare_captures(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """One of them may have no requests, and would not come."""
    monkeypatch.setattr(armed, "is_armed", lambda part: True)

    worker = guarded(SimpleNamespace(data_parallel_size=2), experts=True, everywhere=False)

    assert worker.data_parallel is None
    assert "they could not meet when they started" in worker.line()


def test_nothing_is_said_of_ranks_that_are_not_there() -> None:
    worker = guarded(SimpleNamespace(data_parallel_size=1), experts=True)

    assert worker.line().endswith("no model; no ranks to compare")


def test_ranks_of_other_nodes_are_said_in_the_workers_line(monkeypatch: pytest.MonkeyPatch) -> None:
    # The first two ranks share memory, and the third has its own.
    nodes = {"0": "a", "1": "a", "2": "b"}
    monkeypatch.setattr(members, "_memory", lambda: nodes[threading.current_thread().name])
    store, names = memory(), {}

    def joining(rank: int) -> Callable[[], bool]:
        agreement = Agreement(
            store, GroupMembers(rank, (0, 1, 2), "dp:0[0-2]"), Mode.OBSERVE, seconds=20.0
        )
        names[rank] = agreement

        def join() -> bool:
            threading.current_thread().name = str(rank)
            return agreement.join()

        return join

    assert all_at_once([joining(rank) for rank in range(3)]) == [True] * 3
    worker = WorkerGuard(Options(Mode.OBSERVE), Session())
    worker.data_parallel = DataParallelSteps(names[0], None)

    assert "compared with the ranks of dp:0[0-2] (of which rank 2 on other nodes" in worker.line()
    assert names[2].remote_ranks == (0, 1)
