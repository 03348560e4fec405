"""Ledgers for tests: several ranks in one process, each with a place of its own."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

from graphguard import _core
from graphguard.agreement.launches import LaunchKind
from graphguard.agreement.segment import Segment

KEY = 7
BATCH = (4, 2, 8, 0)


class Place:
    """One rank's place, with launches of every kind registered."""

    def __init__(self, segment: Segment, rank: int, *, enforces: bool) -> None:
        self.native = _core.Ledger(
            segment.descriptor, segment.size, rank, segment.name.token, 100 + rank, enforces
        )
        self.graphs = [self._launch(LaunchKind.REPLAY, graph + 1) for graph in range(2)]
        self.eager = self._launch(LaunchKind.EAGER, 0)
        self.abort = self._launch(LaunchKind.ABORT, 0)

    def _launch(self, kind: LaunchKind, digest: int) -> int:
        return self.native.add_launch(kind, digest, digest, KEY, None, 0xFFFF, 0xFFFF)

    def propose(self, launch: int, batch: tuple[int, int, int, int] = BATCH) -> int:
        return self.native.propose(launch, 0, *batch)


@contextmanager
def places(ranks: int, *, enforces: bool) -> Iterator[list[Place]]:
    segment = Segment.create(ranks)
    try:
        yield [Place(segment, rank, enforces=enforces) for rank in range(ranks)]
    finally:
        segment.remove_name()
