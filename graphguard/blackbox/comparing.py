"""Whether the ranks of a group did the same, step by step."""

from __future__ import annotations

from bisect import bisect
from collections.abc import Mapping, Sequence

import msgspec

from graphguard.blackbox.events import Event
from graphguard.blackbox.history import History
from graphguard.blackbox.reading import Box
from graphguard.blackbox.records import Record
from graphguard.verdict import Action

_GRAPH_ACTIONS = frozenset({Action.REPLAY, Action.PAD})

_Launch = tuple[object, ...]


class Side(msgspec.Struct, frozen=True):
    """What some ranks did in a step where others did something else.

    Attributes:
        members: Which of the boxes they are.
        check: What they decided; None if they went past the step without it.
        launch: What they began to launch; None if nothing.
    """

    members: tuple[int, ...]
    check: Record | None
    launch: Record | None


class FirstDifference(msgspec.Struct, frozen=True):
    """The first step of a group in which its ranks differ.

    Attributes:
        group: The name of the group.
        step: The step.
        time_ns: When the first of them came to it.
        sides: What they did, the largest side first.
        launches_differ: Whether they launched different things too; None if not all of them
            have launched anything.
    """

    group: str
    step: int
    time_ns: int
    sides: tuple[Side, ...]
    launches_differ: bool | None


class Comparison(msgspec.Struct, frozen=True):
    """Which ranks of a group could be compared, and in how many steps."""

    group: str
    members: tuple[int, ...]
    steps: int


def compare(
    group: str, histories: Mapping[int, History], boxes: Sequence[Box]
) -> tuple[Comparison, FirstDifference | None]:
    """Compare what the ranks of a group decided and launched.

    A step is compared between the ranks that still have it. A rank that has a later step but not
    this one went past it, unless a record is missing there: overwritten, or damaged.

    Args:
        group: The name of the group.
        histories: What each of its ranks recorded.
        boxes: The boxes, by whose place the ranks are called.
    """
    ranks = [_Rank(member, boxes[member], of) for member, of in histories.items() if of.checks]
    steps = sorted({step for rank in ranks for step in rank.history.checks if step})
    compared = 0
    members: set[int] = set()
    for step in steps:
        there = [rank for rank in ranks if step in rank.history.checks or rank.went_past(step)]
        if len(there) < 2:
            continue
        compared += 1
        members.update(rank.member for rank in there)
        if len({rank.decision(step) for rank in there}) == 1 and not _launches_differ(there, step):
            continue
        return _comparison(group, members, compared), _difference(group, step, there)
    return _comparison(group, members, compared), None


class _Rank:
    def __init__(self, member: int, box: Box, history: History) -> None:
        self.member = member
        self.history = history
        self._lost = box.lost
        self._steps = sorted(history.checks)

    def went_past(self, step: int) -> bool:
        """Return whether this rank went on to later steps without this one."""
        place = bisect(self._steps, step)
        if place == len(self._steps):
            return False
        checks = self.history.checks
        before = checks[self._steps[place - 1]].number if place else 0
        after = checks[self._steps[place]].number
        return not any(first < after and last > before for first, last in self._lost)

    def decision(self, step: int) -> _Launch | None:
        check = self.history.checks.get(step)
        if check is None:
            return None
        kind = "graph" if check.action in _GRAPH_ACTIONS else check.action
        return _launch(check, kind)

    def launch(self, step: int) -> _Launch | None:
        begun = self.history.launches.get(step)
        if begun is None:
            return None
        return _launch(begun, "graph" if begun.event == Event.REPLAY_BEGIN else Action.EAGER)


def _launch(record: Record, kind: object) -> _Launch:
    """Return what must be equal on all ranks. Batches that share a graph need not be."""
    launch = (record.role, kind, record.digest)
    if kind == "graph":
        return launch
    return (*launch, record.num_reqs, record.query_len, record.num_tokens, record.phase)


def _launches_differ(ranks: Sequence[_Rank], step: int) -> bool | None:
    launches = [rank.launch(step) for rank in ranks]
    if len({launch for launch in launches if launch is not None}) > 1:
        return True
    return None if None in launches else False


def _difference(group: str, step: int, ranks: Sequence[_Rank]) -> FirstDifference:
    sides: dict[tuple[_Launch | None, _Launch | None], list[_Rank]] = {}
    for rank in ranks:
        sides.setdefault((rank.decision(step), rank.launch(step)), []).append(rank)
    checks = [rank.history.checks[step] for rank in ranks if step in rank.history.checks]
    return FirstDifference(
        group=group,
        step=step,
        time_ns=min(check.time_ns for check in checks),
        sides=tuple(
            Side(
                tuple(rank.member for rank in side),
                side[0].history.checks.get(step),
                side[0].history.launches.get(step),
            )
            for side in sorted(sides.values(), key=lambda side: (-len(side), side[0].member))
        ),
        launches_differ=_launches_differ(ranks, step),
    )


def _comparison(group: str, members: set[int], steps: int) -> Comparison:
    return Comparison(group, tuple(sorted(members)), steps)
