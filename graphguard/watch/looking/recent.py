"""What a rank did last in each group, from the records of its black box as they come."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Iterable

import msgspec

from graphguard.blackbox.events import NOT_SET, Event
from graphguard.blackbox.history import BEGIN_OF, BEGINS, STEP_EVENTS
from graphguard.blackbox.records import Record
from graphguard.blackbox.words import told

MAX_GROUPS = 64
"""Groups of ranks that are told apart. A black box has room for about a hundred names."""

_ERROR = re.compile(r"fail|error|exception|refused|killed|^ended:", re.IGNORECASE)


class LastOf(msgspec.Struct, frozen=True):
    """What a rank did last in a step of a group.

    Attributes:
        step: The step.
        text: What it did, in the past tense: ``began replay of target 16x2``.
        event: ``check``, ``replay_begin``, ``replay_end``, ``eager_begin``, ``eager_end``.
        time_ns: When, in nanoseconds since the epoch; 0 if that is not known.
        in_flight: Whether it is a launch that has not returned.
        role: Of the graph.
        batch: The batch: ``16x2``.
        digest: The first 64 bits of the digest of what it launched.
        verdict: What was decided of that step last: ``replay (exact)``.
    """

    step: int
    text: str
    event: str
    time_ns: int
    in_flight: bool
    role: str = ""
    batch: str = ""
    digest: int = 0
    verdict: str = ""


class _Group:
    """What was recorded in one group."""

    def __init__(self) -> None:
        self.last: Record | None = None
        self.verdict = ""
        self._begun: dict[str, Record] = {}

    def add(self, record: Record) -> None:
        if record.event == Event.CHECK:
            self.verdict = record.verdict
        elif record.event in BEGINS:
            self._begun[record.role] = record
        elif record.event in BEGIN_OF:
            self._begun.pop(record.role, None)
        self.last = record

    def told(self) -> LastOf | None:
        # A launch in flight is what a rank is at, whatever another thread has recorded since.
        begun = max(self._begun.values(), key=lambda record: record.number, default=None)
        record = begun or self.last
        if record is None:
            return None
        return LastOf(
            step=record.step,
            text=told(record),
            event=record.event_name,
            time_ns=record.time_ns,
            in_flight=begun is not None,
            role=record.role,
            batch=record.batch,
            digest=record.digest,
            verdict=self.verdict,
        )


class Recent:
    """What the records of a rank come to.

    Attributes:
        error_note: The last note that names an error, or nothing.
        closed: Whether the process said that it ended.
        divergences: How often it saw that another rank differs.
    """

    def __init__(self) -> None:
        self.error_note = ""
        self.closed = False
        self.divergences = 0
        self._groups: dict[str, _Group] = {}
        self._verdicts: Counter[str] = Counter()

    def add(self, records: Iterable[Record]) -> None:
        """Add what is new, in the order of its numbers."""
        for record in records:
            event = record.event
            if event in STEP_EVENTS:
                self._add_step(record)
            elif event == Event.NOTE:
                if _ERROR.search(record.note):
                    self.error_note = record.note
            elif event == Event.DIVERGENCE:
                self.divergences += 1
            elif event == Event.CLOSED:
                self.closed = True

    def last(self) -> dict[str, LastOf]:
        """Return, for each group by name, what was done last in a step of it."""
        told = {name: group.told() for name, group in sorted(self._groups.items())}
        return {name: last for name, last in told.items() if last is not None}

    def verdicts(self) -> dict[str, int]:
        """Return how often each action was decided."""
        return dict(sorted(self._verdicts.items()))

    def _add_step(self, record: Record) -> None:
        group = self._groups.get(record.group)
        if group is None:
            if len(self._groups) >= MAX_GROUPS:
                return
            group = self._groups[record.group] = _Group()
        group.add(record)
        if record.event == Event.CHECK and record.action != NOT_SET:
            self._verdicts[record.action_name] += 1
