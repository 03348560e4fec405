"""Records of a job as they come."""

from __future__ import annotations

from collections.abc import Iterator

import msgspec

from graphguard.blackbox.choosing import Chosen, Rings
from graphguard.blackbox.reading import Box
from graphguard.blackbox.records import Record


class News(msgspec.Struct, frozen=True):
    """What has happened since the last look.

    Attributes:
        chosen: The boxes as they are now.
        opened: Boxes that were not there before, by their place.
        records: New records by time, each with the place of its box.
        missed: How many records were overwritten before they were seen.
    """

    chosen: Chosen
    opened: tuple[int, ...]
    records: tuple[tuple[int, Record], ...]
    missed: int

    @property
    def ended(self) -> bool:
        """Whether there are boxes, and nothing more is to come from any of them."""
        boxes = self.chosen.boxes
        return bool(boxes) and all(box.ended for box in boxes)


class Follower:
    """Looks at rings again and again, and tells what is new.

    Args:
        rings: Where to look.
    """

    def __init__(self, rings: Rings) -> None:
        self._rings = rings
        self._boxes: dict[str, Box] = {}

    def look(self) -> News:
        """Return what is new since the last look; at the first look, everything.

        Raises:
            CommandError: If a directory cannot be listed.
        """
        chosen = self._rings.read()
        before = self._boxes
        self._boxes = {box.path: box for box in chosen.boxes}
        new: list[tuple[int, Record]] = []
        opened: list[int] = []
        missed = 0
        for member, box in enumerate(chosen.boxes):
            known = before.get(box.path)
            if known is None:
                opened.append(member)
            if known is not box:
                new.extend((member, record) for record in _new(known, box))
                missed += _missed(known, box) if known else 0
        new.sort(key=lambda each: (each[1].time_ns, each[0], each[1].number))
        return News(chosen, tuple(opened), tuple(new), missed)


def _new(known: Box | None, box: Box) -> Iterator[Record]:
    # By number and not by what is above the newest: of two threads, the one that began its record
    # first may end it last.
    seen = {record.number for record in known.records} if known else set()
    return (record for record in box.records if record.number not in seen)


def _missed(known: Box, box: Box) -> int:
    """Count the records that were overwritten between two looks."""
    newest = known.records[-1].number if known.records else 0
    oldest = box.records[0].number if box.records else 0
    return sum(
        last - max(first, newest + 1) + 1 for first, last in box.lost if newest < last < oldest
    )
