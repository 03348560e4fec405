"""The newest records of a ring, without reading all that it holds.

A ring of the usual size has a megabyte and 16,384 records. Who looks at the rings of many ranks
several times a second wants the few that are new. What is read here is put into its place in a
ring that is empty otherwise, so that one reader decides what a record is.
"""

from __future__ import annotations

import os

from graphguard._core import ring_bytes
from graphguard.blackbox.events import Event

NEXT_OFFSET = 256
"""Where a ring counts its records: ``next`` in ``csrc/core/ring_format.h``."""

CLOCK_EVERY = 1024
"""At least one of so many records relates the clock of the process to that of the system."""

_CAPACITY_OFFSET = 20
_FIXED_BYTES = ring_bytes(1) - 64
_RECORD_BYTES = 64
_EVENT_OFFSET = 48
_MAX_CAPACITY = 1 << 24


def newest_of(descriptor: int, count: int) -> bytearray | None:
    """Return a ring with the newest records of another one, and the record of the clock they need.

    Args:
        descriptor: Of the other ring.
        count: How many records.

    Returns:
        None if the file is not as large as its header says: it is left to who reads all of it to
        say what is wrong with it.

    Raises:
        OSError: If the file cannot be read.
    """
    head = os.pread(descriptor, _FIXED_BYTES, 0)
    size = os.fstat(descriptor).st_size
    capacity = int.from_bytes(head[_CAPACITY_OFFSET : _CAPACITY_OFFSET + 4], "little")
    if len(head) < _FIXED_BYTES or not 0 < capacity <= _MAX_CAPACITY:
        return None
    if capacity & (capacity - 1) or size != ring_bytes(capacity):
        return None
    begun = int.from_bytes(head[NEXT_OFFSET : NEXT_OFFSET + 8], "little")
    looked_at = min(begun, capacity, max(count, CLOCK_EVERY + 1))
    first = begun - looked_at  # slots are counted from 0, and numbers from 1
    records = _slots(descriptor, capacity, first, looked_at)
    wanted = max(0, looked_at - count)
    clock = records[_EVENT_OFFSET::_RECORD_BYTES].rfind(bytes([Event.CLOCK]))
    content = bytearray(size)
    content[:_FIXED_BYTES] = head
    for place in range(wanted, len(records) // _RECORD_BYTES):
        _put(content, records, place, (first + place) % capacity)
    if 0 <= clock < wanted:
        _put(content, records, clock, (first + clock) % capacity)
    return content


def _slots(descriptor: int, capacity: int, first: int, count: int) -> bytes:
    """Return so many slots, in the order in which they are written: a ring has no end."""
    start = first % capacity
    until_end = min(count, capacity - start)
    records = _pread(descriptor, start, until_end)
    if until_end < count:
        records += _pread(descriptor, 0, count - until_end)
    return records


def _pread(descriptor: int, slot: int, count: int) -> bytes:
    return os.pread(descriptor, count * _RECORD_BYTES, _FIXED_BYTES + slot * _RECORD_BYTES)


def _put(content: bytearray, records: bytes, place: int, slot: int) -> None:
    offset = _FIXED_BYTES + slot * _RECORD_BYTES
    content[offset : offset + _RECORD_BYTES] = records[
        place * _RECORD_BYTES : (place + 1) * _RECORD_BYTES
    ]
