"""How the collective calls of a graph differ between two recordings of one program."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Sequence
from difflib import SequenceMatcher
from itertools import groupby
from typing import Any

import msgspec

from graphguard.audit.groups import Group
from graphguard.signature import CollectiveCall, Signature

MAX_ALIGNED = 500 * 500
"""Calls of the one graph times calls of the other that are aligned with each other. Aligning takes
quadratic time and more; where there are more calls, all of them between the first difference and
the last one are told as one edit."""

MAX_TOLD = 50
"""Lines of calls that an edit tells."""


class Edit(msgspec.Struct, frozen=True):
    """A place at which two sequences of calls differ.

    Attributes:
        position: Index of the first call of it in the first graph, from 0.
        other_position: The same in the second graph.
        gone: The calls that only the first graph makes there, equal ones in a row together.
        added: The calls that only the second graph makes there.
        num_gone: How many calls are gone, those that are not told included.
        num_added: How many calls are added.
    """

    position: int
    other_position: int
    gone: tuple[str, ...]
    added: tuple[str, ...]
    num_gone: int
    num_added: int


class CallsDifference(msgspec.Struct, frozen=True):
    """How the calls of a graph differ.

    Attributes:
        counts: How many calls each of the two graphs makes.
        edits: Where they differ, in order; the first of them is the first difference.
        reordered: Whether both graphs make the same calls, in another order.
        recorders: What saw the calls of each graph, where that differs. What only one of them is
            told (reduction, root, peer, splits, coalescing) is not compared then.
    """

    counts: tuple[int, int]
    edits: tuple[Edit, ...]
    reordered: bool
    recorders: tuple[str, str] | None = None


class Communicators:
    """What communicators are called when two recordings are compared.

    torch numbers groups as they are made, and other names are random, so that a communicator may
    have another name in each run. Here it is called by its ranks, and where several have the same
    ranks, by which of them a graph has used first.

    Args:
        signatures: All graphs of a process, in the order of capture.
    """

    def __init__(self, signatures: Iterable[Signature]) -> None:
        self._labels: dict[tuple[str, int], tuple[str, int]] = {}
        seen: Counter[str] = Counter()
        # Calls repeat; each object is looked at once.
        calls = {id(call): call for signature in signatures for call in signature.collectives}
        for call in calls.values():
            communicator = (call.group, call.group_size)
            if communicator not in self._labels:
                ranks = _ranks(*communicator)
                self._labels[communicator] = (ranks, seen[ranks])
                seen[ranks] += 1

    def label(self, call: CollectiveCall) -> tuple[str, int]:
        """Return what stands for the communicator of a call."""
        return self._labels[call.group, call.group_size]


class CallComparison:
    """Compares the calls of graphs of two recordings of one process.

    Args:
        ours: The communicators of the first recording.
        theirs: Those of the second.
    """

    def __init__(self, ours: Communicators, theirs: Communicators) -> None:
        self._sides = (ours, theirs)
        self._numbers: dict[tuple[Any, ...], int] = {}
        self._known: dict[tuple[int, int, bool], int] = {}

    def difference(
        self, ours: Sequence[CollectiveCall], theirs: Sequence[CollectiveCall]
    ) -> CallsDifference | None:
        """Return how two sequences of calls differ, or None if they do not."""
        recorders = _recorders(ours), _recorders(theirs)
        # Where only one of them makes calls, there is nothing that both were told.
        in_detail = recorders[0] == recorders[1] or not ours or not theirs
        numbers = self._of(ours, 0, in_detail), self._of(theirs, 1, in_detail)
        if numbers[0] == numbers[1]:
            return None
        return CallsDifference(
            counts=(len(ours), len(theirs)),
            edits=tuple(_edits(numbers, (ours, theirs))),
            reordered=Counter(numbers[0]) == Counter(numbers[1]),
            recorders=None if in_detail else recorders,
        )

    def _of(self, calls: Sequence[CollectiveCall], side: int, in_detail: bool) -> list[int]:
        """Return numbers for calls: the same number exactly for calls that count as equal."""
        return [
            self._known.get((side, id(call), in_detail)) or self._learn(call, side, in_detail)
            for call in calls
        ]

    def _learn(self, call: CollectiveCall, side: int, in_detail: bool) -> int:
        told: tuple[Any, ...] = (
            call.operation,
            call.count,
            call.dtype,
            self._sides[side].label(call),
        )
        if in_detail:
            ends = (call.root, call.peer, call.send_splits, call.recv_splits)
            told = (*told, call.reduction, call.coalesced, *ends)
        number = self._numbers.setdefault(told, len(self._numbers) + 1)
        self._known[side, id(call), in_detail] = number
        return number


def _ranks(group: str, size: int) -> str:
    return group[group.index("[") :] if Group.parse(group) else f"{size} ranks"


def _recorders(calls: Sequence[CollectiveCall]) -> str:
    return ", ".join(sorted({call.seen_by for call in calls}))


def _edits(
    numbers: tuple[list[int], list[int]],
    calls: tuple[Sequence[CollectiveCall], Sequence[CollectiveCall]],
) -> Iterable[Edit]:
    ours, theirs = numbers
    start = _common(ours, theirs)
    ours, theirs = ours[start:], theirs[start:]
    end = _common(ours[::-1], theirs[::-1])
    middle = ours[: len(ours) - end], theirs[: len(theirs) - end]
    for a, b, c, d in _blocks(*middle):
        yield Edit(
            position=start + a,
            other_position=start + c,
            gone=_told(calls[0][start + a : start + b]),
            added=_told(calls[1][start + c : start + d]),
            num_gone=b - a,
            num_added=d - c,
        )


def _common(ours: Sequence[int], theirs: Sequence[int]) -> int:
    """Return how many numbers at the start are the same."""
    shorter = min(len(ours), len(theirs))
    return next((i for i in range(shorter) if ours[i] != theirs[i]), shorter)


def _blocks(ours: Sequence[int], theirs: Sequence[int]) -> Iterable[tuple[int, int, int, int]]:
    if len(ours) * len(theirs) > MAX_ALIGNED:
        return [(0, len(ours), 0, len(theirs))]
    matcher = SequenceMatcher(None, ours, theirs, autojunk=False)
    return [(a, b, c, d) for kind, a, b, c, d in matcher.get_opcodes() if kind != "equal"]


def _told(calls: Sequence[CollectiveCall]) -> tuple[str, ...]:
    lines: list[str] = []
    for text, alike in groupby(map(str, calls)):
        if len(lines) == MAX_TOLD:
            break
        number = sum(1 for _ in alike)
        lines.append(f"{number} × {text}" if number > 1 else text)
    return tuple(lines)
