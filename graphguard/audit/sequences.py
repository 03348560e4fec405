"""Comparing the collective calls of two ranks: what differs first, and in what."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from typing import NamedTuple

from graphguard.signature import CollectiveCall

Shared = tuple[str, int | None, str, str | None, int | None, str, int, bool]
"""The fields of a call that must be equal on all ranks: ``CollectiveCall.shared``."""

# Rule, how a message calls the field, and its place in ``CollectiveCall.shared``. Where several
# fields differ, the earliest here is told.
_FIELDS = (
    ("collective-operation", "operation", 0),
    ("collective-group", "communicator", 5),
    ("collective-group", "communicator size", 6),
    ("collective-dtype", "dtype", 2),
    ("collective-count", "count", 1),
    ("collective-reduction", "reduction", 3),
    ("collective-root", "root", 4),
    ("collective-coalescing", "coalescing", 7),
)


class Numbering:
    """Numbers for calls, so that long sequences of them compare fast.

    Two calls have one number exactly if what must be equal on all ranks is equal. Calls are known
    by identity, so they have to live as long as this.
    """

    def __init__(self) -> None:
        self._by_identity: dict[int, int] = {}
        self._by_content: dict[Shared, int] = {}

    def learn(self, call: CollectiveCall) -> None:
        """Give a call its number."""
        number = self._by_content.setdefault(call.shared, len(self._by_content))
        self._by_identity[id(call)] = number

    def of(self, calls: Sequence[CollectiveCall]) -> tuple[int, ...]:
        """Return the numbers of calls that were learnt."""
        return tuple(map(self._by_identity.__getitem__, map(id, calls)))


class Projection(NamedTuple):
    """The calls of a rank that other ranks take part in.

    Attributes:
        numbers: The number of each call.
        positions: Where each stands in the graph.
        graph: All calls of the graph.
    """

    numbers: tuple[int, ...]
    positions: tuple[int, ...]
    graph: Sequence[CollectiveCall]

    def position(self, index: int) -> int:
        """Return where a call stands in the graph; behind the last call if there is no such."""
        return self.positions[index] if index < len(self.positions) else len(self.graph)

    def text(self, index: int) -> str:
        """Return a call as text."""
        if index >= len(self.positions):
            return "no further call"
        return str(self.graph[self.positions[index]])


class Difference(NamedTuple):
    """Where two ranks part.

    Attributes:
        rule: The rule that is broken.
        first: Index, in both projections, of the first call that differs.
        told: What differs, as words that follow "another".
    """

    rule: str
    first: int
    told: str = ""


def compare(reference: Projection, other: Projection) -> Difference:
    """Say what differs first between two sequences of calls, which must not be equal."""
    ours, theirs = reference.numbers, other.numbers
    shorter = min(len(ours), len(theirs))
    first = next((i for i in range(shorter) if ours[i] != theirs[i]), shorter)
    if len(ours) == len(theirs) and Counter(ours) == Counter(theirs):
        return Difference("collective-order", first)
    if _other_group(reference, other, first):
        return Difference("collective-group", first, "communicator")
    if first == shorter or _skips(ours, theirs, first):
        return Difference("collective-missing", first)
    our_call = reference.graph[reference.positions[first]]
    their_call = other.graph[other.positions[first]]
    rule, told = differing_field(our_call.shared, their_call.shared)
    return Difference(rule, first, told)


def differing_field(ours: Shared, theirs: Shared) -> tuple[str, str]:
    """Return the rule that two different calls break, and the field that they differ in."""
    return next((rule, told) for rule, told, i in _FIELDS if ours[i] != theirs[i])


def _other_group(reference: Projection, other: Projection, first: int) -> bool:
    """Whether one rank made the same call on a communicator that its peer is not in.

    Such a call is in only one of the projections. It is recognised by its place in the graph.
    """
    position = min(reference.position(first), other.position(first))
    if len(reference.graph) != len(other.graph) or position == len(reference.graph):
        return False
    ours, theirs = reference.graph[position].shared, other.graph[position].shared
    return ours[5] != theirs[5] and ours[:5] == theirs[:5]


def _skips(ours: Sequence[int], theirs: Sequence[int], first: int) -> bool:
    """Whether the shorter sequence goes on where the longer one is after some more calls."""
    longer, shorter = (ours, theirs) if len(ours) > len(theirs) else (theirs, ours)
    extra = len(longer) - len(shorter)
    if extra == 0:
        return False
    return longer[first + 1] == shorter[first] or longer[first + extra :] == shorter[first:]
