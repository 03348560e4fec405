"""Launches that an engine makes by itself: their marks, and steps that take one native call."""

from __future__ import annotations

import os
import time
from collections.abc import Iterator

import pytest

from graphguard import _core
from graphguard.agreement.launches import LaunchKind, Seen
from graphguard.blackbox.events import NO_NAME, Event
from graphguard.metrics import Metrics
from graphguard.metrics.samples import STEP_BUCKETS, STEP_SHIFT
from graphguard.table import SignatureTable
from graphguard.verdict import Action, Phase, Reason, Verdict
from tests.unit.ring_file import RingFile, ring_file

DECODE, PREFILL = int(Phase.DECODE), int(Phase.PREFILL)


@pytest.fixture
def file() -> Iterator[RingFile]:
    with ring_file(64) as opened:
        yield opened


def events(file: RingFile) -> list[Event]:
    return [Event(record.event) for record in file.records()]


class Rank:
    """One rank of two, with one graph for four decodes of two tokens."""

    def __init__(self, fd: int, rank: int, ring: _core.BlackBox | None, *, enforces: bool) -> None:
        self.ledger = _core.Ledger(fd, _core.ledger_bytes(2), rank, 7, os.getpid(), enforces)
        self.table = SignatureTable()
        self.launches = _core.Launches(STEP_SHIFT, STEP_BUCKETS)
        self.launches.write_to(ring)
        self.steps = _core.Steps(self.table, self.ledger, self.launches)
        family = self.table.add_family(False)
        for graph, reqs in enumerate((4, 8)):
            assert self.table.insert(family, reqs, 2, 2 * reqs, DECODE, []) == graph
            launch = self.ledger.add_launch(
                int(LaunchKind.REPLAY), graph + 1, 0, 5, ring, NO_NAME, NO_NAME
            )
            self.steps.set_replay(graph, launch)


@pytest.fixture
def descriptor() -> Iterator[int]:
    fd = os.memfd_create("ledger")
    os.posix_fallocate(fd, 0, _core.ledger_bytes(2))
    _core.initialise_ledger(fd, _core.ledger_bytes(2), 2, 7)
    yield fd
    os.close(fd)


@pytest.mark.parametrize("enforces", [False, True])
def test_a_step_that_fits_is_published_and_its_verdict_returned(
    descriptor: int, file: RingFile, enforces: bool
) -> None:
    ring = file.open()
    rank = Rank(descriptor, 0, ring, enforces=enforces)

    exact = rank.steps.take(0, 4, 2, 8, DECODE)
    padded = rank.steps.take(0, 3, 2, 6, DECODE)

    assert exact == Verdict(Action.REPLAY, Reason.EXACT, 0)
    assert padded == Verdict(Action.PAD, Reason.PADDED, 0)
    assert rank.ledger.step() == rank.ledger.passed(0) == 2
    assert rank.launches.replays
    assert events(file) == [Event.CHECK, Event.CHECK]


def test_a_step_that_does_not_fit_is_not_published_and_counted_once(descriptor: int) -> None:
    rank = Rank(descriptor, 0, None, enforces=True)

    assert rank.steps.take(0, 4, 2, 8, PREFILL) is None

    verdict, answer = rank.steps.last()
    assert verdict is not None
    assert (verdict.reason, answer) == (Reason.WRONG_PHASE, -1)
    assert rank.ledger.step() == 0
    assert rank.table.counts() == [(verdict, 1)]
    assert not rank.launches.replays


def test_a_step_that_the_ranks_differ_in_is_published_once_and_told(descriptor: int) -> None:
    first, second = (Rank(descriptor, rank, None, enforces=True) for rank in range(2))

    assert first.steps.take(0, 4, 2, 8, DECODE) is not None
    assert second.steps.take(1, 8, 2, 16, DECODE) is None

    verdict, answer = second.steps.last()
    assert verdict == Verdict(Action.REPLAY, Reason.EXACT, 1)
    assert Seen(answer & 15) is Seen.DIFFERS
    assert second.ledger.step() == 1
    assert second.ledger.last()[1] == 0


def test_a_graph_that_was_captured_again_is_published_as_what_it_is_now(descriptor: int) -> None:
    first, second = (Rank(descriptor, rank, None, enforces=True) for rank in range(2))
    for rank in (first, second):
        again = rank.ledger.add_launch(int(LaunchKind.REPLAY), 99, 0, 5, None, NO_NAME, NO_NAME)
        rank.steps.set_replay(0, again)

    assert first.steps.take(0, 4, 2, 8, DECODE) is not None
    assert second.steps.take(0, 4, 2, 8, DECODE) is not None

    published = first.ledger.published(0, 1)
    assert published is not None
    assert published[3] == 99


def test_graphs_that_were_not_set_are_refused(descriptor: int) -> None:
    rank = Rank(descriptor, 0, None, enforces=True)

    with pytest.raises(IndexError, match="no such graph"):
        rank.steps.take(2, 4, 2, 8, DECODE)
    with pytest.raises(IndexError, match="a graph before it is missing"):
        rank.steps.set_replay(3, 0)


def test_launches_are_marked_by_what_was_decided(file: RingFile) -> None:
    launches = _core.Launches(STEP_SHIFT, STEP_BUCKETS)
    launches.write_to(file.open())

    for replays in (True, False):
        launches.replays = replays
        launches.begin()
        # What is decided meanwhile is the next launch.
        launches.replays = not replays
        launches.end()

    assert events(file) == [
        Event.REPLAY_BEGIN,
        Event.REPLAY_END,
        Event.EAGER_BEGIN,
        Event.EAGER_END,
    ]


def test_launches_are_in_flight_until_they_return_and_counted_by_how_long_they_took() -> None:
    launches = _core.Launches(STEP_SHIFT, STEP_BUCKETS)
    before = time.monotonic_ns()

    launches.begin()
    during = launches.in_flight
    assert before <= launches.began <= time.monotonic_ns()
    time.sleep(0.002)
    launches.end()
    launches.end()

    assert (during, launches.in_flight) == (True, False)
    assert 2_000_000 <= launches.nanoseconds <= time.monotonic_ns() - before
    # The first bucket ends at 2 to the power of the shift; each one is twice as long as the last.
    bucket = min((launches.nanoseconds >> STEP_SHIFT).bit_length(), STEP_BUCKETS - 1)
    assert launches.counts == [int(i == bucket) for i in range(STEP_BUCKETS)]


def test_metrics_count_native_launches_with_their_own() -> None:
    metrics, launches = Metrics(), _core.Launches(STEP_SHIFT, STEP_BUCKETS)
    metrics.watch_launches("target", launches)
    metrics.replay_begin("target")
    metrics.replay_end("target")
    launches.begin()
    launches.end()
    launches.begin()

    (role,) = metrics.samples().roles

    assert role.in_flight == 1
    assert role.began == launches.began
    assert sum(role.steps.counts) == 2
    assert role.steps.nanoseconds >= launches.nanoseconds


def test_steps_are_made_of_what_they_need() -> None:
    with pytest.raises((TypeError, RuntimeError)):
        _core.Steps(SignatureTable(), None, None)  # type: ignore[arg-type]


@pytest.mark.parametrize(("shift", "buckets"), [(41, 2), (1, 0), (1, 65)])
def test_impossible_buckets_are_refused(shift: int, buckets: int) -> None:
    with pytest.raises(ValueError, match="at most 64 buckets"):
        _core.Launches(shift, buckets)
