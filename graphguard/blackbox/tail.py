"""The records of a ring as they come, at the cost of those that are new."""

from __future__ import annotations

from typing import TYPE_CHECKING

from graphguard.blackbox import reading
from graphguard.blackbox.reading import Box, Glance
from graphguard.blackbox.records import Record

if TYPE_CHECKING:
    from pathlib import Path

FIRST = 4096
"""How many records the first look takes, without another bound."""

_OVERLAP = 64
"""Records that are read again: of two threads, the one that began its record first may end it
last."""

_FIRST_NUMBERS = 2
"""The first record of a ring is one of the clock, which nobody is shown."""


class Tail:
    """Looks at a ring again and again, and tells what is new.

    Args:
        path: The file.
        first: At most so many records are read at the first look; None for all.

    Attributes:
        path: The file.
        box: The ring as it was at the last look. Its records are the newest ones only.
        counted_from: The number of the first record that was seen; 1 if that was the first of all.
        missed: How many records after that were overwritten before they were seen.
    """

    def __init__(self, path: Path, first: int | None = FIRST) -> None:
        self.path = path
        self.box: Box | None = None
        self.counted_from = 1
        self.missed = 0
        self._first = first
        self._glance: Glance | None = None
        self._seen: set[int] = set()

    def look(self) -> tuple[Record, ...]:
        """Return the records that are new since the last look.

        Raises:
            BlackBoxNotReady: If nothing has been written to the ring yet.
            BlackBoxError: If it cannot be read or is none.
        """
        glance = reading.glance(self.path)
        box = self.box
        if box is not None and glance == self._glance and not box.writing:
            return ()
        count = self._first
        if box is not None:
            count = max(0, glance.written - box.written) + _OVERLAP
        new = self._take(reading.read(self.path, count))
        self._glance = glance
        return new

    def _take(self, box: Box) -> tuple[Record, ...]:
        before = self.box.written if self.box is not None else 0
        oldest = box.records[0].number if box.records else box.written + 1
        new = tuple(
            record
            for record in box.records
            if record.number > before - _OVERLAP and record.number not in self._seen
        )
        if self.box is None:
            self.counted_from = 1 if oldest <= _FIRST_NUMBERS else oldest
        else:
            self.missed += sum(
                last - max(first, before + 1) + 1
                for first, last in box.lost
                if before < last < oldest
            )
        self.box = box
        recent = box.written - _OVERLAP
        self._seen = {record.number for record in box.records if record.number > recent}
        return new
