"""Which ranks are in trouble, and which only take their time."""

from __future__ import annotations

import pytest

from graphguard.watch.looking.view import Doing, View, doing, main_activity
from tests.unit.watch.rank_views import NOW, SECOND, activity, bundle, last, pulse, rank

STUCK = pulse(activity(seconds=6))


@pytest.mark.parametrize(
    ("fields", "word"),
    [
        ({}, Doing.IDLE),
        ({"pulse": pulse(activity())}, Doing.BUSY),
        ({"pulse": pulse(activity(seconds=4.9))}, Doing.BUSY),
        ({"pulse": STUCK}, Doing.STALLED),
        ({"pulse": pulse(activity(seconds=6), extended_ns=SECOND)}, Doing.EXTENDED),
        ({"pulse": pulse(activity("startup", seconds=50))}, Doing.BUSY),
        ({"pulse": pulse(activity("capture", seconds=61))}, Doing.STALLED),
        # Paused or suspended: the watchdog did not count that time.
        ({"pulse": pulse(activity(seconds=60, watched_ns=SECOND))}, Doing.BUSY),
        # The watchdog itself does not run any more.
        ({"pulse": pulse(activity(seconds=60, watched_ns=1), beat_ns=9 * SECOND)}, Doing.STALLED),
        # There is none, and so no limit.
        ({"pulse": pulse(activity(seconds=6), beat_ns=None, stall_ns=0)}, Doing.STALLED),
        ({"pulse": STUCK, "state": "stopped"}, Doing.STOPPED),
        ({"pulse": STUCK, "state": "gone"}, Doing.DIED),
        ({"pulse": STUCK, "state": "zombie"}, Doing.DIED),
        ({"state": "gone", "closed": True}, Doing.ENDED),
        ({"closed": True}, Doing.ENDED),
        # It hangs at its end, in what it had launched.
        ({"closed": True, "pulse": STUCK}, Doing.STALLED),
        ({"closed": True, "pulse": STUCK, "state": "gone"}, Doing.ENDED),
        ({"pulse": None}, Doing.UNKNOWN),
        ({"pulse": None, "last": {"g": last()}}, Doing.BUSY),
        ({"pulse": None, "state": "elsewhere"}, Doing.UNKNOWN),
    ],
)
def test_what_a_rank_is_doing(fields: dict[str, object], word: Doing) -> None:
    assert doing(rank(**fields)) is word  # type: ignore[arg-type]


def test_idle_ranks_are_no_trouble() -> None:
    assert not View(NOW, (rank(0), rank(1))).trouble
    assert not View(NOW, (rank(0), rank(1))).ended


@pytest.mark.parametrize("state", ["stopped", "gone"])
def test_one_rank_in_trouble_is_trouble(state: str) -> None:
    assert View(NOW, (rank(0), rank(1, state=state))).trouble


def test_a_job_has_ended_when_all_of_its_ranks_have() -> None:
    assert View(NOW, (rank(0, closed=True), rank(1, state="gone"))).ended
    assert not View(NOW, ()).ended


def test_a_launch_says_more_than_the_step_that_it_is_in() -> None:
    step, launch = activity("step", 3, name="execute_model"), activity("replay", 2)

    assert main_activity(rank(pulse=pulse(step, launch))) is launch
    assert main_activity(rank(pulse=pulse(step))) is step
    assert main_activity(rank(pulse=pulse(step), state="gone")) is None


def test_a_stall_is_open_while_it_is_examined_or_ranks_are_in_trouble() -> None:
    stuck, fine = rank(pulse=STUCK), rank()
    left = bundle(examined=False)

    assert View(NOW, (fine,), (bundle(),)).trouble
    assert View(NOW, (stuck,), (left,)).open_stalls == (left,)
    assert View(NOW, (fine,), (left,)).open_stalls == ()
    assert View(NOW, (fine,), (bundle(over="recovered"),)).open_stalls == ()
    assert not View(NOW, (fine,), (left,)).trouble
