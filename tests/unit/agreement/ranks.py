"""Ranks of one group as threads of this process, for what needs no collectives."""

from __future__ import annotations

import threading
from collections.abc import Callable, Sequence
from typing import Any, TypeVar, cast

from torch._C._distributed_c10d import HashStore

from graphguard.agreement.rendezvous import Rendezvous
from graphguard.agreement.store import Store

JOIN_SECONDS = 60.0
Result = TypeVar("Result")


def memory() -> Store:
    """A store that threads of this process share."""
    return cast(Store, HashStore())


def group(store: Store, ranks: Sequence[int] = (0, 1), name: str = "0[0-1]") -> list[Rendezvous]:
    """The rendezvous of every rank of a group."""
    return [Rendezvous(store, r, len(ranks), name, ranks=ranks) for r in range(len(ranks))]


def all_at_once(calls: Sequence[Callable[[], Result]]) -> list[Result | Exception]:
    """Run each call on a thread of its own and return what came of each."""
    results: list[Any] = [AssertionError("it did not end")] * len(calls)

    def run(index: int) -> None:
        try:
            results[index] = calls[index]()
        except Exception as error:  # noqa: BLE001 - looked at by the test
            results[index] = error

    threads = [
        threading.Thread(target=run, args=(index,), daemon=True) for index in range(len(calls))
    ]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(JOIN_SECONDS)
    return results
