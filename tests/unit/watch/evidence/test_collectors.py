"""Collectors side by side, and their deadline."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Sequence

from graphguard.watch.evidence.collectors import Absent, Became, Collector, Deadline, run
from tests.unit.watch.stuck_processes import wait_for_state


def collector(name: str, *missing: str) -> Collector:
    return Collector(name, lambda: missing)


def test_what_became_of_each_is_told_in_their_order() -> None:
    def absent() -> Sequence[str]:
        raise Absent("no such thing")

    def fails() -> Sequence[str]:
        raise ValueError("broken")

    accounts = run(
        [
            collector("all"),
            collector("some", "this", "that"),
            Collector("none", absent),
            Collector("broken", fails),
        ],
        Deadline(time.monotonic() + 20.0),
    )
    assert [(each.name, each.became, each.reason) for each in accounts] == [
        ("all", Became.COMPLETE, ""),
        ("some", Became.PARTLY, "this; that"),
        ("none", Became.ABSENT, "no such thing"),
        ("broken", Became.FAILED, "ValueError: broken"),
    ]


def test_what_does_not_end_is_late_and_the_others_are_not() -> None:
    over = threading.Event()
    began = time.monotonic()
    late, done = run(
        [Collector("late", lambda: [str(over.wait(60))]), collector("done")],
        Deadline(began + 0.5),
    )
    took = time.monotonic() - began
    over.set()
    assert (late.became, done.became) == (Became.LATE, Became.COMPLETE)
    assert took < 3.0


PROGRAM = """
import time
from graphguard.watch.evidence.collectors import Collector, Deadline, run
def slow():
    time.sleep(1.0)
    return ()
print("up", flush=True)
deadline = Deadline(time.monotonic() + 2.0)
print(run([Collector("slow", slow)], deadline)[0].became, flush=True)
"""


def test_time_in_which_the_process_was_stopped_does_not_count() -> None:
    process = subprocess.Popen([sys.executable, "-c", PROGRAM], stdout=subprocess.PIPE)
    try:
        assert process.stdout is not None
        assert process.stdout.readline() == b"up\n"
        time.sleep(0.5)
        os.kill(process.pid, signal.SIGSTOP)
        wait_for_state(process.pid, "T")
        # The time of a sleep goes on meanwhile, but the thread has to be let run to see that.
        time.sleep(1.6)
        os.kill(process.pid, signal.SIGCONT)
        assert process.stdout.readline() == b"complete\n"
    finally:
        process.kill()
        process.communicate(timeout=30)


def test_no_more_than_a_bound_is_given_back() -> None:
    deadline = Deadline(time.monotonic() + 1.0)
    for _ in range(10):
        deadline._give_back(1.0)
    assert 1.0 < deadline.left() <= 2.5
    deadline._give_back(0.1)
    assert deadline.left() <= 2.5
