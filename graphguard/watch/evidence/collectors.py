"""Collectors that run side by side until a common deadline, and what became of each."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Sequence
from enum import Enum

import msgspec

_MAX_REASON = 1000
_TICK = 0.05
_MISSED = 0.2
"""A wait that takes so much longer than it was to take: the process was not let run."""

_MAX_GIVEN = 1.5


class Became(str, Enum):
    """What became of a collector."""

    COMPLETE = "complete"
    PARTLY = "partly"
    """It has collected some, and says what is missing."""
    ABSENT = "absent"
    """There is no such thing here."""
    FAILED = "failed"
    LATE = "late"
    """It had not ended when the time was up. What it had put down by then is there."""

    def __str__(self) -> str:
        return self.value


class Absent(Exception):
    """That there is nothing to collect, and why."""


class Account(msgspec.Struct, frozen=True):
    """What became of one collector.

    Attributes:
        name: The collector.
        became: What became of it.
        seconds: How long it took, or had taken.
        reason: Why it is not complete.
    """

    name: str
    became: Became
    seconds: float
    reason: str = ""


class Collector(msgspec.Struct, frozen=True):
    """One thing to collect.

    Attributes:
        name: For the account.
        collect: Does it. It returns what is missing, or raises :class:`Absent`.
    """

    name: str
    collect: Callable[[], Sequence[str]]


class Deadline:
    """When all has to be there.

    Time in which this process was not let run, on a machine that is overloaded or was suspended,
    is given back up to a bound: with nothing collected, being in time is worth nothing.

    Args:
        until: The moment, by ``time.monotonic()``.
    """

    def __init__(self, until: float) -> None:
        self._until = until
        self._given = 0.0

    def left(self) -> float:
        """Return how many seconds are left."""
        return max(0.0, self._until - time.monotonic())

    def wait_for(self, threads: Sequence[threading.Thread]) -> None:
        """Wait until all threads have ended or the time is up."""
        for thread in threads:
            while thread.is_alive() and (left := self.left()):
                before = time.monotonic()
                wanted = min(_TICK, left)
                thread.join(wanted)
                self._give_back(time.monotonic() - before - wanted)

    def _give_back(self, missed: float) -> None:
        given = min(missed, _MAX_GIVEN - self._given)
        if missed > _MISSED and given > 0:
            self._given += given
            self._until += given


def run(collectors: Sequence[Collector], deadline: Deadline) -> tuple[Account, ...]:
    """Run collectors at once, and return when all have ended or the time is up.

    One that is late is left behind in its thread: it may hang in the kernel, where nothing can end
    it.

    Args:
        collectors: What to run.
        deadline: When the time is up.
    """
    accounts: dict[str, Account] = {}
    lock = threading.Lock()
    began = time.monotonic()

    def one(collector: Collector) -> None:
        account = _account(collector, began)
        with lock:
            accounts.setdefault(collector.name, account)

    threads = [
        threading.Thread(target=one, args=(each,), name=f"collect {each.name}", daemon=True)
        for each in collectors
    ]
    for thread in threads:
        thread.start()
    deadline.wait_for(threads)
    took = round(time.monotonic() - began, 3)
    with lock:
        for each in collectors:
            late = Account(each.name, Became.LATE, took, "it had not ended when the time was up")
            accounts.setdefault(each.name, late)
        return tuple(accounts[each.name] for each in collectors)


def _account(collector: Collector, began: float) -> Account:
    became, reason = Became.COMPLETE, ""
    try:
        missing = collector.collect()
        if missing:
            became, reason = Became.PARTLY, "; ".join(missing)
    except Absent as why:
        became, reason = Became.ABSENT, str(why)
    except Exception as error:  # noqa: BLE001 - the other evidence is still to be had
        became, reason = Became.FAILED, f"{type(error).__name__}: {error}"
    seconds = round(time.monotonic() - began, 3)
    return Account(collector.name, became, seconds, reason[:_MAX_REASON])
