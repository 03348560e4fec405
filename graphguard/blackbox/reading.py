"""Reading black boxes, of processes that run and of those that are gone."""

from __future__ import annotations

import os
import stat
from collections.abc import Sequence
from typing import TYPE_CHECKING, NamedTuple

import msgspec

from graphguard import environment
from graphguard._core import read_ring, ring_bytes
from graphguard.blackbox.directory import FILE_PATTERN, is_held
from graphguard.blackbox.events import NO_NAME, Event
from graphguard.blackbox.newest import NEXT_OFFSET, newest_of
from graphguard.blackbox.records import Record
from graphguard.errors import BlackBoxError, BlackBoxNotReady

if TYPE_CHECKING:
    from pathlib import Path

MAX_BYTES = ring_bytes(environment.MAX_RING_ENTRIES)
MAX_LOOKS = 4
"""How often a ring that is being written is read for the sake of the record in the making."""


_Row = tuple[int, int, int, int, int, int, int, int, int, int, int, int, int, int, int, int]


class Box(msgspec.Struct, frozen=True):
    """The black box of one process, as it was when it was read.

    Attributes:
        path: The file.
        rank: Global rank of the process.
        world_size: Number of processes of the job.
        host: Name of the machine.
        pid: Process id on that machine.
        started_ns: When it was opened, in nanoseconds since the epoch.
        records: What it holds, in the order in which it was written. Records of the clock, which
            say nothing about the program, are left out.
        written: How many records were begun, those that have been overwritten included.
        lost: Numbers that none of its records has, as ranges, first and last: of records that
            have been overwritten, are damaged, or were only begun.
        damaged: Slots that hold neither a whole record or name nor nothing.
        running: Whether the process still runs; None if that cannot be known from here.
    """

    path: str
    rank: int
    world_size: int
    host: str
    pid: int
    started_ns: int
    records: tuple[Record, ...]
    written: int
    lost: tuple[tuple[int, int], ...] = ()
    damaged: int = 0
    running: bool | None = None

    @property
    def closed(self) -> bool:
        """Whether the process said that it ended."""
        # What destructors write at the end of a process may come after it.
        return any(record.event == Event.CLOSED for record in self.records[-64:])

    @property
    def writing(self) -> bool:
        """Whether its newest record was only begun when it was read."""
        return bool(self.lost) and self.lost[-1][1] == self.written

    @property
    def ended(self) -> bool:
        """Whether nothing more is to come."""
        return self.closed or self.running is False


class Glance(NamedTuple):
    """What changes whenever a ring does.

    Attributes:
        inode: Of the file.
        written: How many records were begun.
        held: Whether its process runs, where that can be known.
    """

    inode: int
    written: int
    held: bool | None


def read(path: Path, newest: int | None = None) -> Box:
    """Read a black box. Its process may be writing it meanwhile.

    Args:
        path: The file.
        newest: Only that many of the newest records, for what looks often. The others count as
            lost.

    Raises:
        BlackBoxNotReady: If nothing has been written to it yet.
        BlackBoxError: If it cannot be read or is none.
    """
    descriptor = _opened(path)
    try:
        # Asked first: what a process wrote before it was gone is then read for certain.
        held = is_held(descriptor)
        box = _read(descriptor, path, held, newest)
        for _ in range(MAX_LOOKS - 1):
            if not box.damaged or not held:
                break
            # Was it only being written?
            box = min(box, _read(descriptor, path, held, newest), key=lambda looked: looked.damaged)
    finally:
        os.close(descriptor)
    return box


def glance(path: Path) -> Glance:
    """Look at a ring without reading it.

    Raises:
        BlackBoxError: If it cannot be read.
    """
    descriptor = _opened(path)
    try:
        held = is_held(descriptor)
        written = int.from_bytes(os.pread(descriptor, 8, NEXT_OFFSET), "little")
        return Glance(os.fstat(descriptor).st_ino, written, held)
    finally:
        os.close(descriptor)


def _opened(path: Path) -> int:
    try:
        # A FIFO would block the opening itself; O_NONBLOCK does not matter to a regular file.
        descriptor = os.open(path, os.O_RDONLY | os.O_CLOEXEC | os.O_NONBLOCK)
        status = os.fstat(descriptor)
    except OSError as error:
        raise _unreadable(path, error) from error
    problem = ""
    if not stat.S_ISREG(status.st_mode):
        problem = "it is not a regular file"
    elif status.st_size > MAX_BYTES:
        problem = f"it has {status.st_size:,} bytes, and no black box has more than {MAX_BYTES:,}"
    if problem:
        os.close(descriptor)
        raise _no_box(path, problem)
    return descriptor


def _read(descriptor: int, path: Path, held: bool | None, newest: int | None) -> Box:
    content: bytes | bytearray | None = None
    try:
        if newest is not None:
            content = newest_of(descriptor, newest)
        if content is None:
            os.lseek(descriptor, 0, os.SEEK_SET)
            with open(descriptor, "rb", closefd=False) as file:
                content = file.read(MAX_BYTES + 1)
    except OSError as error:
        raise _unreadable(path, error) from error
    if not content.strip(b"\0"):
        raise BlackBoxNotReady(
            f"{path} is not a black box yet: it is empty",
            hint="its process is opening it just now, or was ended while it did",
        )
    problem, identity, names, rows, damaged = read_ring(content)
    if problem:
        raise _no_box(path, problem)
    rank, world_size, pid, host, _, started_ns, begun = identity
    return Box(
        path=str(path),
        rank=rank,
        world_size=world_size,
        host=host,
        pid=pid,
        started_ns=started_ns,
        records=_records(rows, _Names(names)),
        written=begun,
        lost=_lost(rows, begun),
        damaged=damaged,
        running=_running(held, host),
    )


def _records(rows: Sequence[_Row], names: _Names) -> tuple[Record, ...]:
    clock = int(Event.CLOCK)
    return tuple(
        [
            Record(a, b, c, d, e, f, g, names[role], names[group], event, h, i, j, k, m, n)
            for a, b, c, d, e, f, g, role, group, event, h, i, j, k, m, n in rows
            if event != clock
        ]
    )


def _lost(rows: Sequence[_Row], written: int) -> tuple[tuple[int, int], ...]:
    """Return the numbers that no record has: before the records, between them and after them."""
    lost = []
    expected = 1
    for row in rows:
        number = row[0]
        if number != expected:
            lost.append((expected, number - 1))
        expected = number + 1
    if written >= expected:
        lost.append((expected, written))
    return tuple(lost)


def _running(held: bool | None, host: str) -> bool | None:
    if held:
        return True
    # A copy, or a directory of another machine, is held by nobody here.
    return False if held is False and host == os.uname().nodename else None


class _Names(dict[int, str]):
    """The names of a ring by their numbers; those that are damaged have the number as a name."""

    def __init__(self, names: Sequence[str | None]) -> None:
        super().__init__((i, name) for i, name in enumerate(names) if name is not None)
        self[NO_NAME] = ""

    def __missing__(self, number: int) -> str:
        self[number] = name = f"name {number}"
        return name


def _unreadable(path: Path, error: OSError) -> BlackBoxError:
    return BlackBoxError(
        f"cannot read {path}: {error.strerror}", hint="check the path and its permissions"
    )


def _no_box(path: Path, problem: str) -> BlackBoxError:
    return BlackBoxError(
        f"{path} is not a black box: {problem}", hint=f"graphguard writes {FILE_PATTERN}"
    )
