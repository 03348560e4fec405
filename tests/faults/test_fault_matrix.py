"""Every fault on 2, 4 and 8 real ranks: seen in time, and nobody blamed who did nothing."""

from __future__ import annotations

from collections.abc import Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from typing import cast

import pytest

from tests.faults.catalogue import ALL, FAULTS, SOUND, UNGUARDED
from tests.faults.harness import RUNS_AT_A_TIME, Harness, Run
from tests.faults.judge import judge, went_wrong
from tests.faults.matrix import SIZES

Runs = dict[tuple[str, int], Future[Run]]


@pytest.fixture(scope="module")
def runs(
    request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[Runs]:
    """The runs that the tests of this module ask for, in their order and several at a time."""
    cases: dict[tuple[str, int], None] = dict.fromkeys(
        cast("tuple[str, int]", tuple(map(item.callspec.params.get, ("key", "ranks"))))
        for item in request.session.items
        if isinstance(item, pytest.Function) and item.module is request.module
    )
    with Harness() as harness, ThreadPoolExecutor(RUNS_AT_A_TIME) as pool:
        yield {
            (key, ranks): pool.submit(harness.run, key, ranks, tmp_path_factory.mktemp("run"))
            for key, ranks in cases
        }
        pool.shutdown(cancel_futures=True)


@pytest.mark.parametrize("ranks", SIZES)
@pytest.mark.parametrize("key", FAULTS)
def test_a_fault_is_seen_in_time_and_nobody_else_is_blamed(
    key: str, ranks: int, runs: Runs
) -> None:
    outcome = runs[key, ranks].result()

    assert judge(FAULTS[key], outcome).problems == [], _told(outcome)


@pytest.mark.parametrize("ranks", SIZES)
@pytest.mark.parametrize("key", SOUND)
def test_nothing_is_said_of_ranks_that_do_the_same(key: str, ranks: int, runs: Runs) -> None:
    outcome = runs[key, ranks].result()

    assert judge(SOUND[key], outcome).problems == [], _told(outcome)


@pytest.mark.parametrize("ranks", [2])
@pytest.mark.parametrize("key", UNGUARDED)
def test_a_fault_does_harm_where_nothing_guards_and_is_missed(
    key: str, ranks: int, runs: Runs
) -> None:
    outcome = runs[key, ranks].result()

    assert went_wrong(outcome), _told(outcome)
    guarded = ALL[f"{UNGUARDED[key].name}, enforce"]
    assert judge(guarded, outcome).problems != []


def _told(outcome: Run) -> str:
    """Return what the ranks wrote down, for whoever looks at a failure."""
    return "\n".join(
        f"rank {rank}: {event.time:.3f} {event.kind} {event.fields}"
        for rank, run in enumerate(outcome.ranks)
        for event in run.events
    )
