"""Which ranks a communicator has, read from its text: ``0[0-3]`` or ``5[0,2,4-6]``."""

from __future__ import annotations

import re
from bisect import bisect_left, bisect_right
from collections.abc import Sequence

# Ten digits hold any rank. A longer number would only cost time.
_TEXT = re.compile(r"[^\[\]]*\[(\d{1,10}(?:-\d{1,10})?(?:,\d{1,10}(?:-\d{1,10})?)*)\]", re.ASCII)


class Group:
    """The ranks of a communicator, in its own order.

    The runs are kept as they are written: text from a file may claim a billion ranks.

    Args:
        runs: First and last rank of each run, in the order of the communicator.
    """

    def __init__(self, runs: Sequence[tuple[int, int]]) -> None:
        self._runs = tuple(runs)

    @classmethod
    def parse(cls, text: str) -> Group | None:
        """Read the text of a communicator; None if it does not say which ranks it has."""
        match = _TEXT.fullmatch(text)
        if match is None:
            return None
        runs = []
        for run in match[1].split(","):
            first, _, last = run.partition("-")
            runs.append((int(first), int(last or first)))
        return cls(runs) if all(first <= last for first, last in runs) else None

    def among(self, ranks: Sequence[int]) -> frozenset[int]:
        """Return which of some ascending ranks belong to the communicator."""
        members: set[int] = set()
        for first, last in self._runs:
            members.update(ranks[bisect_left(ranks, first) : bisect_right(ranks, last)])
        return frozenset(members)

    def rank_at(self, index: int) -> int | None:
        """Return the global rank of a rank in the communicator, or None if it has no such rank."""
        if index < 0:
            return None
        for first, last in self._runs:
            if index <= last - first:
                return first + index
            index -= last - first + 1
        return None

    def index_of(self, rank: int) -> int | None:
        """Return the rank in the communicator of a global rank, or None if it is not in it."""
        before = 0
        for first, last in self._runs:
            if first <= rank <= last:
                return before + rank - first
            before += last - first + 1
        return None
