"""Reading breadcrumbs: how far the replays of another process have got.

A reading is a few system calls and copies only what is in use: a megabyte for a process with
thousands of graphs, a few kilobytes for one with a dozen. So it may be polled. What takes time then
is to tell of graphs that nobody replays, which :func:`read_breadcrumbs` can leave out.
"""

from __future__ import annotations

import os
import stat

import msgspec

from graphguard import _core
from graphguard.breadcrumbs.files import FILE_PATTERN, beside
from graphguard.errors import BlackBoxError, BlackBoxNotReady

__all__ = ["Breadcrumbs", "CrumbState", "beside", "breadcrumbs_in", "read_breadcrumbs"]

KINDS = ("kernel", "memset", "memop", "host", "emulated")
"""What counts marks up, by its number in the file."""

_CONSTANTS = frozenset({"memset", "memop"})


class CrumbState(msgspec.Struct, frozen=True):
    """How far the replays of one graph have got.

    A mark is passed when its call is over. So a replay that stands still has passed ``reached``
    calls and stands in ``next_call``, or in what is computed between the two.

    Attributes:
        graph: What the graph is called; empty until its recording has ended.
        digest: The first 64 bits of its shared digest, as black boxes have it; 0 until then.
        launched: How often it was launched.
        finished: How many replays have passed every mark. What a replay computes after its last
            call has no mark.
        reached: How many marks the oldest replay in flight has passed; 0 where none is in flight.
        positions: How many marks it has.
        next_call: The first call that this replay has not passed; empty where none is in flight.
        kind: What counts the marks up: ``kernel``, ``memset``, ``memop``, ``host``, ``emulated``.
        missing: Communication kernels that have no mark.
        captured_ns: When it was captured, by CLOCK_MONOTONIC of its machine.
    """

    graph: str
    digest: int
    launched: int
    finished: int
    reached: int
    positions: int
    next_call: str
    kind: str = "kernel"
    missing: int = 0
    captured_ns: int = 0

    @property
    def in_flight(self) -> int:
        """How many launches have not passed every mark."""
        return self.launched - self.finished

    @property
    def exact(self) -> bool:
        """Whether the marks tell replays apart: constants do not where launches are queued."""
        return self.kind not in _CONSTANTS

    def __str__(self) -> str:
        name = self.graph or f"graph {self.digest:016x}"
        if not self.in_flight:
            return f"{name}: {self.finished} replays, none in flight"
        call = self.next_call or "a call that is not known"
        return (
            f"{name}: replay {self.finished + 1} has passed {self.reached} of {self.positions} "
            f"calls; next is {call}"
        )


class Breadcrumbs(msgspec.Struct, frozen=True):
    """What a file of breadcrumbs holds.

    Attributes:
        rank: Global rank of its process, as far as it was known when the file was opened.
        world_size: Number of processes of the job, with the same reserve.
        pid: Process id.
        host: Name of the machine.
        graphs: Those that may be launched still, in the order of their places.
        refused: Graphs that there was no room for.
        damaged: Graphs of which no whole record is there; one that is being written is one.
    """

    rank: int
    world_size: int
    pid: int
    host: str
    graphs: tuple[CrumbState, ...]
    refused: int = 0
    damaged: int = 0


def read_breadcrumbs(
    path: str | os.PathLike[str], *, in_flight: bool = False
) -> tuple[CrumbState, ...]:
    """Return how far the replays of a process have got, which may be running or gone.

    Args:
        path: The file.
        in_flight: Whether to leave graphs out of which no replay is in flight. Where there are
            thousands, this is what to poll.

    Raises:
        BlackBoxNotReady: If its process is opening the file just now.
        BlackBoxError: If it cannot be read or holds no breadcrumbs.
    """
    return breadcrumbs_in(path, in_flight=in_flight).graphs


def breadcrumbs_in(path: str | os.PathLike[str], *, in_flight: bool = False) -> Breadcrumbs:
    """Return all that a file of breadcrumbs says.

    Args:
        path: The file.
        in_flight: As in :func:`read_breadcrumbs`.

    Raises:
        BlackBoxNotReady: If its process is opening it just now.
        BlackBoxError: If it cannot be read or holds no breadcrumbs.
    """
    try:
        # A FIFO would block the opening itself; O_NONBLOCK does not matter to a regular file.
        flags = os.O_RDONLY | os.O_CLOEXEC | os.O_NONBLOCK | os.O_NOFOLLOW
        descriptor = os.open(path, flags)
    except OSError as error:
        raise _unreadable(path, error) from error
    try:
        found = _read(descriptor, path, in_flight)
    except OSError as error:
        raise _unreadable(path, error) from error
    finally:
        os.close(descriptor)
    problem, (rank, world_size, pid, host), rows, refused, damaged = found
    if problem:
        raise _no_breadcrumbs(path, problem)
    graphs = tuple(
        CrumbState(*row[:7], kind=KINDS[row[7]], missing=row[8], captured_ns=row[9]) for row in rows
    )
    return Breadcrumbs(rank, world_size, pid, host, graphs, refused, damaged)


def _read(descriptor: int, path: str | os.PathLike[str], in_flight: bool) -> _core.CrumbContents:
    status = os.fstat(descriptor)
    if not stat.S_ISREG(status.st_mode):
        raise _no_breadcrumbs(path, "it is not a regular file")
    header = os.pread(descriptor, _core.BREADCRUMB_HEADER_BYTES, 0)
    if not header.strip(b"\0"):
        raise BlackBoxNotReady(
            f"{os.fspath(path)} holds no breadcrumbs yet: it is empty",
            hint="its process is opening it just now, or was ended while it did",
        )
    problem, regions = _core.breadcrumb_regions(header, status.st_size)
    if problem:
        raise _no_breadcrumbs(path, problem)
    # Launches are copied before the numbers of the marks, which run after them.
    graphs, texts, texts_of_marks, numbers = (
        os.pread(descriptor, nbytes, offset) for offset, nbytes in regions
    )
    return _core.read_breadcrumbs(header, graphs, texts, texts_of_marks, numbers, in_flight)


def _unreadable(path: str | os.PathLike[str], error: OSError) -> BlackBoxError:
    return BlackBoxError(
        f"cannot read {os.fspath(path)}: {error.strerror}",
        hint="check the path and its permissions",
    )


def _no_breadcrumbs(path: str | os.PathLike[str], problem: str) -> BlackBoxError:
    return BlackBoxError(
        f"{os.fspath(path)} holds no breadcrumbs: {problem}",
        hint=f"graphguard writes {FILE_PATTERN}",
    )
