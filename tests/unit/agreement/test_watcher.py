"""What the watcher makes of the processes of other ranks, and how it ends its own."""

from __future__ import annotations

import gc
import multiprocessing
import os
import subprocess
import sys
import threading
from collections.abc import Iterator
from typing import Any, cast

import pytest

from graphguard import Agreement, _core
from graphguard.agreement.launches import Outcome, Trouble
from graphguard.agreement.members import LocalLedger, Member
from graphguard.agreement.segment import Segment, SegmentName
from graphguard.agreement.store import GroupMembers
from graphguard.agreement.watcher import STUCK_EXIT_CODE, Watcher
from graphguard.blackbox.events import NO_NAME
from graphguard.environment import Mode
from tests.unit.agreement.ledgers import BATCH, KEY, Place

JOIN_SECONDS = 60.0


def watched(segment: Segment, place: int, mode: Mode = Mode.ENFORCE) -> tuple[Agreement, Watcher]:
    """Return the agreement of one of two ranks, joined by hand, and its watcher."""
    segment.hold(place)
    enforces = mode is Mode.ENFORCE
    native = _core.Ledger(
        segment.descriptor, segment.size, place, segment.name.token, os.getpid(), enforces
    )
    group = GroupMembers(place, (0, 1), "0[0-1]")
    # Nodes that share their memory need no store.
    store = cast(Any, None)
    agreement = Agreement(store, group, mode)
    agreement._ledger = LocalLedger(native, segment, (0, 1), place)
    members = [Member("host", "memory", 0, "enforce", "0")] * 2
    return agreement, Watcher(agreement, store, group, members)


def publish(agreement: Agreement) -> None:
    """Publish another step of the rank that is watched: the first graph of a place."""
    assert agreement.ledger is not None
    native = agreement.ledger.native
    launch = native.add_launch(0, 1, 1, KEY, None, NO_NAME, NO_NAME)
    assert native.propose(launch, 0, *BATCH) == 0


@pytest.fixture
def segment() -> Iterator[Segment]:
    made = Segment.create(2)
    yield made
    made.remove_name()


def test_a_group_that_is_taken_down_leaves_no_descriptor_and_no_mapping(segment: Segment) -> None:
    def mappings() -> int:
        with open("/proc/self/maps") as maps:
            return sum(segment.name.file in line for line in maps)

    peer = _core.Ledger(segment.descriptor, segment.size, 1, segment.name.token, os.getpid(), False)
    own = Segment.open(segment.name, 2)
    before = mappings()
    agreement, watcher = watched(own, 0)
    thread = _started(watcher)
    assert mappings() == before + 1
    del agreement, watcher

    thread.join(JOIN_SECONDS)
    gc.collect()

    assert peer.has_left(0)
    assert mappings() == before
    with pytest.raises(OSError, match="Bad file descriptor"):
        os.fstat(own.descriptor)


def _started(watcher: Watcher) -> threading.Thread:
    watcher.start()
    assert watcher._thread is not None
    return watcher._thread


def test_a_rank_of_another_process_namespace_is_missed_whatever_its_number(
    segment: Segment,
) -> None:
    agreement, watcher = watched(segment, 0)
    _core.Ledger(segment.descriptor, segment.size, 1, segment.name.token, os.getpid(), True)

    watcher._look(agreement)

    assert [str(divergence.kind) for divergence in agreement.divergences] == ["peer_gone"]
    assert agreement.stopped_by is not None


def test_a_rank_on_another_thread_of_this_process_is_not_missed(segment: Segment) -> None:
    agreement, watcher = watched(segment, 0)
    watched(segment, 1)

    watcher._look(agreement)

    assert agreement.divergences == []


def test_a_rank_that_has_left_is_missed_only_by_one_that_goes_on(segment: Segment) -> None:
    agreement, watcher = watched(segment, 0)
    peer = Place(segment, 1, enforces=True)
    publish(agreement)
    peer.propose(peer.graphs[0])
    peer.native.leave()

    watcher._look_at_peers(agreement)
    assert agreement.divergences == []

    publish(agreement)
    watcher._look_at_peers(agreement)
    assert [(str(d.kind), d.step, d.ranks) for d in agreement.divergences] == [
        ("peer_gone", 1, (1,))
    ]
    assert watcher._stuck_for_certain


def test_it_is_not_certain_that_a_rank_waits_for_one_that_ended_after_the_same_step(
    segment: Segment,
) -> None:
    agreement, watcher = watched(segment, 0)
    peer = Place(segment, 1, enforces=True)
    publish(agreement)
    peer.propose(peer.graphs[0])

    watcher._look_at_peers(agreement)

    assert [str(divergence.kind) for divergence in agreement.divergences] == ["peer_gone"]
    assert not watcher._stuck_for_certain


def test_observing_nothing_that_another_rank_tells_stops_this_one(segment: Segment) -> None:
    agreement, watcher = watched(segment, 0, Mode.OBSERVE)
    peer = Place(segment, 1, enforces=True)
    peer.propose(peer.graphs[0])
    peer.native.settle(Outcome.REFUSED, Trouble.REFUSED, False)

    watcher._look_at_trouble(agreement)

    assert [str(divergence.kind) for divergence in agreement.divergences] == ["peer_refused"]
    assert agreement.stopped_by is None


def child(file: str, token: int, fails: bool) -> None:
    _, watcher = watched(Segment.open(SegmentName(file, token), 2), 1)
    watcher.start()
    if fails:
        raise RuntimeError("an error of the program")


@pytest.mark.parametrize("method", ["forkserver", "spawn"])
@pytest.mark.parametrize("fails", [False, True])
def test_a_child_of_multiprocessing_leaves_if_it_has_not_failed(
    segment: Segment, method: str, fails: bool
) -> None:
    agreement, _ = watched(segment, 0)
    context: Any = multiprocessing.get_context(method)
    process = context.Process(target=child, args=(segment.name.file, segment.name.token, fails))
    process.start()
    process.join(JOIN_SECONDS)

    assert process.exitcode == int(fails)
    assert agreement.ledger is not None
    assert agreement.ledger.native.pid(1) == process.pid
    assert agreement.ledger.native.has_left(1) is not fails


# A launch that waits for a rank which is gone, in a program that has replaced its stderr.
STUCK = """
import io, sys, time
from graphguard.agreement.segment import Segment
from tests.unit.agreement.ledgers import Place
from tests.unit.agreement.test_watcher import publish, watched
segment = Segment.create(2)
segment.remove_name()
agreement, watcher = watched(segment, 0)
Place(segment, 1, enforces=True)
publish(agreement)
sys.stderr = io.StringIO()
watcher.start()
time.sleep(60)
"""


def test_a_launch_that_waits_in_vain_is_ended_whatever_stderr_is(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.delenv("GRAPHGUARD_WHEN_STUCK")

    ended = subprocess.run(
        [sys.executable, "-c", STUCK], capture_output=True, text=True, timeout=50.0, check=False
    )
    assert ended.returncode == STUCK_EXIT_CODE
    assert "Thread 0x" in ended.stderr


# A program of the first rank of two nodes, which ends while the store of the group is asked.
ENDS = """
import time
from torch.distributed import TCPStore
from graphguard.agreement import nodes, watcher
from graphguard.agreement.launches import Outcome, Trouble
from graphguard.agreement.members import Member
from graphguard.agreement.segment import Segment
from tests.unit.agreement.test_watcher import watched

class Busy:
    def __init__(self):
        self.store = TCPStore("127.0.0.1", 0, is_master=True, wait_for_workers=False)
    def set(self, key, value):
        self.check([key])
    def check(self, keys):
        return any(self.store.check(keys) for _ in range(2_000))

watcher.POLL_SECONDS = 0.001
segment = Segment.create(2)
segment.remove_name()
agreement, watching = watched(segment, 0)
names = ["a", "b"]
watching._nodes = nodes.NodeComparison(Busy(), 0, names, lambda: None, seconds=0.0)
watching.start()
time.sleep(0.1)
"""


def test_a_program_that_ends_while_nodes_are_compared_ends_as_it_would_without() -> None:
    ended = subprocess.run(
        [sys.executable, "-c", ENDS], capture_output=True, text=True, timeout=50.0, check=False
    )
    assert (ended.returncode, ended.stderr) == (0, "")
