"""Which of the calls that one recorder saw are the calls that another one saw.

Two recorders of one thread see the same calls in the same order, but not all of each other's, and
one call of a program may be several to NCCL. So sequences are aligned, as ``diff`` aligns lines.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Sequence
from difflib import SequenceMatcher
from itertools import islice
from typing import NamedTuple

MAX_CELLS = 4_000_000
"""Beyond this, what lies between the equal beginning and the equal end is not aligned."""


class Key(NamedTuple):
    """What two recorders both tell of a call."""

    operation: str
    elements: int | None
    dtype: str
    root: int | None
    num_ranks: int


class Expected(NamedTuple):
    """How a call of one recorder shows in the other one's sequence.

    Attributes:
        ways: The calls that it may show as, one way or another; the last where nothing tells.
        part: The operation of the calls that it shows as, where nobody tells of how many elements.
        num_parts: How many these may be.
    """

    ways: tuple[tuple[Key, ...], ...]
    part: str = ""
    num_parts: int = 0


class _Token(NamedTuple):
    owner: int
    key: Key


def align(
    expected: Sequence[Expected], seen: Sequence[Key], *, pair_different: bool
) -> list[tuple[int, ...]]:
    """Return, for each expected call, the positions in ``seen`` that it shows as, ascending.

    Args:
        expected: What one recorder saw, in order.
        seen: What the other one saw, in order.
        pair_different: Whether calls of one operation that stand at the same place between calls
            that are equal are one call, told differently.
    """
    tokens = list(_tokens(expected, seen))
    found: list[list[int]] = [[] for _ in expected]
    taken: set[int] = set()
    for first, last, begin, end, equal in _blocks([token.key for token in tokens], seen):
        if not equal and not (pair_different and last - first == end - begin):
            continue
        for token, position in zip(tokens[first:last], range(begin, end), strict=True):
            if equal or _may_be_one(token.key, seen[position]):
                found[token.owner].append(position)
                taken.add(position)
    _take_parts(expected, seen, found, taken)
    return [tuple(positions) for positions in found]


def _tokens(expected: Sequence[Expected], seen: Sequence[Key]) -> Iterator[_Token]:
    there = set(seen)
    for owner, call in enumerate(expected):
        way = next(
            (way for way in call.ways if any(key in there for key in way)),
            call.ways[-1] if call.ways else (),
        )
        for key in way:
            yield _Token(owner, key)


def _blocks(left: Sequence[Key], right: Sequence[Key]) -> Iterator[tuple[int, int, int, int, bool]]:
    shorter = min(len(left), len(right))
    head = next((i for i in range(shorter) if left[i] != right[i]), shorter)
    rest = shorter - head
    tail = next((i for i in range(rest) if left[-1 - i] != right[-1 - i]), rest)
    left_end, right_end = len(left) - tail, len(right) - tail
    yield 0, head, 0, head, True
    if (left_end - head) * (right_end - head) > MAX_CELLS:
        yield head, left_end, head, right_end, False
    else:
        matcher = SequenceMatcher(None, left[head:left_end], right[head:right_end], autojunk=False)
        for tag, first, last, begin, end in matcher.get_opcodes():
            yield head + first, head + last, head + begin, head + end, tag == "equal"
    yield left_end, len(left), right_end, len(right), True


def _may_be_one(left: Key, right: Key) -> bool:
    return left.operation == right.operation and left.num_ranks == right.num_ranks


def _take_parts(
    expected: Sequence[Expected],
    seen: Sequence[Key],
    found: list[list[int]],
    taken: set[int],
) -> None:
    """Give calls whose parts are not known one by one what lies between their neighbours' calls."""
    left = Counter(key.operation for place, key in enumerate(seen) if place not in taken)
    begin = 0
    for index, call in enumerate(expected):
        if left[call.part] and not found[index]:
            following = (positions[0] for positions in found[index + 1 :] if positions)
            gap = range(begin, next(following, len(seen)))
            parts = (p for p in gap if p not in taken and seen[p].operation == call.part)
            found[index] += islice(parts, call.num_parts)
            taken.update(found[index])
            left[call.part] -= len(found[index])
        if found[index]:
            begin = found[index][-1] + 1
