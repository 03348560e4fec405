"""A ring in memory that has a file descriptor, as a file would be."""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager

from graphguard import _core
from tests.unit.ring_model import Record

CLOCK = 1


class RingFile:
    """The file under a `_core.BlackBox`, and what can be read from it."""

    def __init__(self, capacity: int) -> None:
        self.capacity = capacity
        self.bytes = _core.ring_bytes(capacity)
        self.fd = os.memfd_create("ring")
        os.posix_fallocate(self.fd, 0, self.bytes)

    def open(self, rank: int = 0, world: int = 1, host: str = "host") -> _core.BlackBox:
        return _core.BlackBox(self.fd, self.bytes, rank, world, os.getpid(), host, self.capacity)

    def data(self) -> bytes:
        return os.pread(self.fd, self.bytes, 0)

    def write(self, offset: int, data: bytes) -> None:
        assert os.pwrite(self.fd, data, offset) == len(data)

    def records(self) -> list[Record]:
        """The records that were asked for: those of the clocks are left out."""
        error, _, _, records, _ = _core.read_ring(self.data())
        assert error == ""
        return [Record(*record[2:]) for record in records if record[9] != CLOCK]

    def close(self) -> None:
        os.close(self.fd)


@contextmanager
def ring_file(capacity: int) -> Iterator[RingFile]:
    """A file of the size of a ring, full of zeros."""
    file = RingFile(capacity)
    try:
        yield file
    finally:
        file.close()
