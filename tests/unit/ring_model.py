"""The black box's format in Python, written from its description and not from the C++."""

from __future__ import annotations

import struct
from collections.abc import Iterable, Sequence
from typing import NamedTuple

MAGIC = b"GGBLKBOX"
HEADER_BYTES = 4096
NAME_SLOTS = 128
NAME_BYTES = 128
RECORD_BYTES = 64
NEXT_OFFSET = 256
RECORDS_OFFSET = HEADER_BYTES + NAME_SLOTS * NAME_BYTES
HEADER = struct.Struct("<8s8I4Q64s")
RECORD = struct.Struct("<4Q3I2H4B2HI")
MASK = 2**64 - 1


class Record(NamedTuple):
    """A record as `read_ring` returns it, without its number and its time."""

    step: int = 0
    digest: int = 0
    num_reqs: int = 0
    query_len: int = 0
    num_tokens: int = 0
    role: int = 0xFFFF
    group: int = 0xFFFF
    event: int = 10
    action: int = 0xFF
    reason: int = 0xFF
    phase: int = 0xFF
    peer: int = 0xFFFF
    flags: int = 0
    detail: int = 0

    @property
    def arguments(self) -> tuple[int, ...]:
        """The fields in the order in which `BlackBox.record` takes them."""
        kind = (self.event, self.role, self.group, self.step, self.digest)
        batch = (self.num_reqs, self.query_len, self.num_tokens, self.phase)
        return (*kind, *batch, self.action, self.reason, self.peer, self.flags, self.detail)


class Header(NamedTuple):
    """What a box says about itself."""

    magic: bytes = MAGIC
    version: int = 1
    header_bytes: int = HEADER_BYTES
    record_bytes: int = RECORD_BYTES
    capacity: int = 4
    name_slots: int = NAME_SLOTS
    name_slot_bytes: int = NAME_BYTES
    rank: int = 0
    world_size: int = 1
    pid: int = 1
    ticks: int = 0
    monotonic_ns: int = 0
    realtime_ns: int = 0
    host: bytes = b"host"


def fold(a: int, b: int) -> int:
    product = (a ^ 0xA0761D6478BD642F) * (b ^ 0xE7037ED1A0B428DB)
    return (product ^ product >> 64) & MASK


def rotate(word: int, bits: int) -> int:
    return (word << bits | word >> (64 - bits)) & MASK if bits else word


def checksum(data: bytes) -> int:
    """The checksum of whole words; pairs of them are folded, and the folds rotated and added."""
    words = [word for (word,) in struct.iter_unpack("<Q", data)]
    total = len(words)
    words += [0] * (len(words) % 2)
    for i in range(0, len(words), 2):
        total += rotate(fold(words[i], words[i + 1]), i * 11 % 64)
    total &= MASK
    return (total ^ total >> 32) & 0xFFFFFFFF


def header_bytes(header: Header) -> bytes:
    fields = HEADER.pack(*header)
    return fields + struct.pack("<I", checksum(fields))


def name_bytes(text: bytes) -> bytes:
    padded = text.ljust(NAME_BYTES - 8, b"\0")
    length = struct.pack("<HH", len(text), 0)
    return length + struct.pack("<I", checksum(length + bytes(4) + padded)) + padded


def record_bytes(number: int, ticks: int, record: Record) -> bytes:
    fields = RECORD.pack(number, ticks, *record)
    return fields + struct.pack("<I", checksum(fields + bytes(4)))


def file_bytes(
    header: Header,
    records: Iterable[bytes] = (),
    names: Sequence[bytes] = (),
    next_number: int = 0,
) -> bytes:
    """A whole file: records by slot, names by index, all that is not given zero."""
    start = header_bytes(header).ljust(NEXT_OFFSET, b"\0") + struct.pack("<Q", next_number)
    named = b"".join(name_bytes(name) for name in names)
    slots = b"".join(records).ljust(header.capacity * RECORD_BYTES, b"\0")
    before_records = start.ljust(HEADER_BYTES, b"\0") + named
    return before_records.ljust(RECORDS_OFFSET, b"\0") + slots
