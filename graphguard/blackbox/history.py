"""What one rank recorded in one group, step by step."""

from __future__ import annotations

from collections.abc import Sequence

from graphguard.blackbox.events import Event
from graphguard.blackbox.reading import Box
from graphguard.blackbox.records import Record

BEGIN_OF: dict[int, Event] = {
    Event.REPLAY_END: Event.REPLAY_BEGIN,
    Event.EAGER_END: Event.EAGER_BEGIN,
}
"""For each end of a launch, what it is the end of."""

BEGINS = frozenset(BEGIN_OF.values())
STEP_EVENTS = frozenset({Event.CHECK, *BEGINS, *BEGIN_OF})
"""Events of a rank that is in a step. Others may name a step that is yet to come."""


class History:
    """What one rank recorded in one group.

    Attributes:
        steps: The records of each step that it has, in the order in which they were written.
        checks: The first check of each step: what this rank would launch, before it knew what
            another one does.
        launches: The last launch that was begun in each step.
        last: The newest record, or None. That a process ended is said elsewhere, and does not count
            if there is anything else.
        last_of_step: The newest record of what was done in a step, or None.
        last_step: The highest step, 0 if there is none.
    """

    def __init__(self) -> None:
        self.steps: dict[int, list[Record]] = {}
        self.checks: dict[int, Record] = {}
        self.launches: dict[int, Record] = {}
        self.last: Record | None = None
        self.last_of_step: Record | None = None
        self.last_step = 0
        self._begun: dict[str, Record] = {}

    @property
    def begun(self) -> Record | None:
        """The launch that was begun last and has not ended, or None."""
        return max(self._begun.values(), key=lambda record: record.number, default=None)

    def add(self, record: Record) -> None:
        """Add the next record."""
        event = record.event
        if event != Event.CLOSED or self.last is None:
            self.last = record
        if record.step:
            self.steps.setdefault(record.step, []).append(record)
        if event in STEP_EVENTS:
            self.last_of_step = record
            self.last_step = max(self.last_step, record.step)
        if event == Event.CHECK:
            self.checks.setdefault(record.step, record)
        elif event in BEGINS:
            self.launches[record.step] = self._begun[record.role] = record
        elif event in BEGIN_OF:
            self._begun.pop(record.role, None)


def histories(boxes: Sequence[Box]) -> dict[str, dict[int, History]]:
    """Return, for each group by name, the histories of the boxes that recorded something in it.

    Boxes are called by their place. What belongs to no group is under the empty name.
    """
    by_group: dict[str, dict[int, History]] = {}
    for member, box in enumerate(boxes):
        of_box: dict[str, History] = {}
        for record in box.records:
            history = of_box.get(record.group)
            if history is None:
                history = of_box[record.group] = History()
            history.add(record)
        for group, history in of_box.items():
            by_group.setdefault(group, {})[member] = history
    return dict(sorted(by_group.items()))
