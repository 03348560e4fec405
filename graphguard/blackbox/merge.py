"""The black boxes of a job side by side: where each rank stands, and where they part."""

from __future__ import annotations

from collections import deque
from collections.abc import Iterable, Iterator, Sequence

import msgspec

from graphguard.blackbox.comparing import compare
from graphguard.blackbox.events import Event
from graphguard.blackbox.history import History, histories
from graphguard.blackbox.reading import Box
from graphguard.blackbox.records import Record


class Standing(msgspec.Struct, frozen=True):
    """Where one rank stands in one group.

    Attributes:
        member: Which of the boxes it is.
        group: The name of the group; empty for what belongs to none.
        step: The highest step that it came to.
        behind: How many steps it is behind the first of its group.
        last: What it recorded last, or None if nothing.
        last_of_step: What it did last in a step, or None.
        begun: The launch that was begun last and has not ended, or None.
    """

    member: int
    group: str
    step: int
    behind: int
    last: Record | None
    last_of_step: Record | None
    begun: Record | None


class Timeline:
    """Several boxes, merged.

    Args:
        boxes: One for each process. They are called by their place here: two processes may claim
            to be of one rank.

    Attributes:
        boxes: The boxes.
        histories: For each group, what each of the boxes that is in it recorded.
        standings: Where each rank stands in each of its groups.
        comparisons: What was compared.
        first_difference: The first difference of all groups, or None.
        divergences: What the ranks themselves recorded of differences, by time.
        newest_ns: The time of the newest record.
        damaged: Damaged records and names of all boxes.
    """

    def __init__(self, boxes: Sequence[Box]) -> None:
        self.boxes = tuple(boxes)
        self.histories = histories(self.boxes)
        self.standings = tuple(_standings(self.histories, len(self.boxes)))
        found = [compare(group, of, self.boxes) for group, of in self.histories.items() if group]
        self.comparisons = tuple(comparison for comparison, _ in found)
        self.first_difference = min(
            (difference for _, difference in found if difference is not None),
            key=lambda difference: difference.time_ns,
            default=None,
        )
        self.divergences = _by_time(
            (member, record)
            for member, box in enumerate(self.boxes)
            for record in box.records
            if record.event == Event.DIVERGENCE
        )
        self.newest_ns = max((r.time_ns for box in self.boxes for r in box.records), default=0)
        self.damaged = sum(box.damaged for box in self.boxes)

    def records(self, last: int | None = None) -> list[tuple[int, Record]]:
        """Return the records of all boxes by time, each with which box it is of.

        Args:
            last: Only those of the last so many steps of each group; of what belongs to no step,
                the last so many of each box.
        """
        return _by_time(
            (member, record)
            for member, box in enumerate(self.boxes)
            for record in (box.records if last is None else self._last(member, box, last))
        )

    def first_step(self, group: str, last: int) -> int:
        """Return the first of the last so many steps of a group."""
        return max((h.last_step for h in self.histories[group].values()), default=0) - last + 1

    def _last(self, member: int, box: Box, last: int) -> Iterator[Record]:
        groups = [group for group, of in self.histories.items() if member in of]
        first = {group: self.first_step(group, last) for group in groups if group}
        if "" in groups:
            first[""] = self.histories[""][member].last_step - last + 1
        without_step: deque[Record] = deque(maxlen=last)
        for record in box.records:
            if not record.step:
                without_step.append(record)
            elif record.step >= first[record.group]:
                yield record
        yield from without_step


def merge(boxes: Sequence[Box]) -> Timeline:
    """Put boxes side by side."""
    return Timeline(boxes)


def _standings(by_group: dict[str, dict[int, History]], boxes: int) -> Iterator[Standing]:
    in_groups = {member for group, of in by_group.items() if group for member in of}
    shown: set[int] = set()
    for group, of in by_group.items():
        first = max(history.last_step for history in of.values())
        for member, history in of.items():
            if not group and member in in_groups and not (history.checks or history.launches):
                continue  # that a process ended says nothing of where it stands
            shown.add(member)
            yield Standing(
                member=member,
                group=group,
                step=history.last_step,
                behind=first - history.last_step if group else 0,
                last=history.last,
                last_of_step=history.last_of_step,
                begun=history.begun,
            )
    for member in set(range(boxes)) - shown:
        yield Standing(member, "", step=0, behind=0, last=None, last_of_step=None, begun=None)


def _by_time(records: Iterable[tuple[int, Record]]) -> list[tuple[int, Record]]:
    return sorted(records, key=lambda each: (each[1].time_ns, each[0], each[1].number))
