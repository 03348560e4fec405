"""Collectors that run side by side until a common deadline, and what became of each."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Sequence
from enum import Enum

import msgspec

_MAX_REASON = 1000


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


def run(collectors: Sequence[Collector], until: float) -> tuple[Account, ...]:
    """Run collectors at once, and return when all have ended or the time is up.

    One that is late is left behind in its thread: it may hang in the kernel, where nothing can end
    it.

    Args:
        collectors: What to run.
        until: When the time is up, by ``time.monotonic()``.
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
    for thread in threads:
        thread.join(max(0.0, until - time.monotonic()))
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
