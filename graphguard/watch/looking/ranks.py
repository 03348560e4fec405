"""What each rank of a job is doing right now: its black box, its pulse, its process."""

from __future__ import annotations

import os
import re
import time
from collections.abc import Iterable, Sequence
from pathlib import Path

import msgspec

from graphguard.blackbox.choosing import newest_of_ranks, ring_files
from graphguard.blackbox.pulse import Pulse, read_pulse
from graphguard.blackbox.reading import Box
from graphguard.blackbox.tail import FIRST, Tail
from graphguard.errors import BlackBoxError
from graphguard.watch.breadcrumbs import CrumbState, beside, read_breadcrumbs
from graphguard.watch.looking.processes import (
    MAX_THREADS,
    ProcessState,
    elsewhere,
    gone,
    process_state,
)
from graphguard.watch.looking.recent import LastOf, Recent

_STARTED_TICKS_NS = 1_000_000_000 // os.sysconf("SC_CLK_TCK")
_DOUBT_NS = 1_000_000_000
"""How much later than its ring a process may seem to have started. It is counted in ticks."""

_MONOTONIC_OFFSET = 56
"""Where a ring says when it was opened, by the clock that nobody sets: ``HeaderFields``."""

_PID_OF_NAME = re.compile(r"blackbox\.rank\d+\.(\d+)\.", re.ASCII)


class RankState(msgspec.Struct, frozen=True):
    """What one rank is doing.

    Attributes:
        rank: Its global rank.
        world_size: Ranks of its job.
        pid: Its process.
        host: The machine of it.
        ring: Its black box.
        process: What the kernel says of it.
        pulse: What is in flight in it; None if its ring has no pulse.
        last: For each group, what it did last in a step there.
        note: The last note in its black box that names an error, or nothing.
        crumbs: How far its replays in flight got, where its graphs have breadcrumbs.
        leaves_crumbs: Whether its process leaves breadcrumbs that can be read.
        closed: Whether it said that it ended.
        started_ns: When its black box was opened, in nanoseconds since the epoch.
        verdicts: How often each action was decided: ``{"replay": 812, "pad": 77}``.
        divergences: How often it saw that another rank differs.
        counted_from: The number of the first record that was counted; 1 if none is missing.
        missed: Records after that which were overwritten before they were counted.
        looked_ns: When it was looked at, in nanoseconds since the epoch.
    """

    rank: int
    world_size: int
    pid: int
    host: str
    ring: str
    process: ProcessState
    pulse: Pulse | None
    last: dict[str, LastOf]
    note: str
    crumbs: tuple[CrumbState, ...] = ()
    leaves_crumbs: bool = False
    closed: bool = False
    started_ns: int = 0
    verdicts: dict[str, int] = {}
    divergences: int = 0
    counted_from: int = 1
    missed: int = 0
    looked_ns: int = 0

    @property
    def ended(self) -> bool:
        """Whether nothing more is to come from it."""
        return self.closed or not self.process.alive

    @property
    def died(self) -> bool:
        """Whether its process is gone and did not say that it ended."""
        return not self.closed and not self.process.alive


class Ranks:
    """The ranks of a job, which are looked at again and again.

    Args:
        paths: Directories that hold rings, of which the newest of each rank is used, or rings.
        pids: Only the rings of these processes; all if None.
        first: At most so many records of a ring are read at the first look; None for all.
        max_threads: How many threads of each process are looked at; 0 for none.
    """

    def __init__(
        self,
        paths: Iterable[Path],
        pids: frozenset[int] | None = None,
        *,
        first: int | None = FIRST,
        max_threads: int = MAX_THREADS,
    ) -> None:
        self._paths = tuple(paths)
        self._pids = pids
        self._first = first
        self._max_threads = max_threads
        self._members: dict[str, _Member] = {}

    def only(self, pids: frozenset[int]) -> None:
        """Look at the rings of these processes from now on."""
        self._pids = pids

    def look(self) -> tuple[RankState, ...]:
        """Return what each rank is doing, by rank and host.

        Raises:
            CommandError: If a directory cannot be listed.
        """
        named: list[Box] = []
        found: list[Box] = []
        files = self._files()
        for file, by_name in files.items():
            box = self._member(file).look()
            if box is not None and (self._pids is None or box.pid in self._pids):
                (named if by_name else found).append(box)
        for forgotten in self._members.keys() - files.keys():
            del self._members[forgotten]
        newest, _ = newest_of_ranks(found, named)
        boxes = sorted([*named, *newest], key=lambda box: (box.rank, box.host, box.started_ns))
        return tuple(self._members[box.path].state(box, self._max_threads) for box in boxes)

    def _member(self, file: str) -> _Member:
        member = self._members.get(file)
        if member is None:
            member = self._members[file] = _Member(Path(file), self._first)
        return member

    def _files(self) -> dict[str, bool]:
        """Return every ring once, and whether it was named itself."""
        files: dict[str, bool] = {}
        for path in sorted(self._paths, key=os.path.isdir):
            if not os.path.isdir(path):
                files.setdefault(str(path), True)
                continue
            for file in ring_files(path):
                if self._pids is None or _pid_of(file.name) in self._pids:
                    files.setdefault(str(file), False)
        return files


def rank_states(
    directory_or_paths: Path | Sequence[Path],
    pids: frozenset[int] | None = None,
    max_threads: int = MAX_THREADS,
) -> tuple[RankState, ...]:
    """Look once at all ranks. Who looks more often keeps a :class:`Ranks`, which costs less.

    Args:
        directory_or_paths: A directory of rings, or rings and directories.
        pids: Only these processes; if None, those of the newest ring of each rank.
        max_threads: How many threads of each process are looked at; 0 for none.

    Raises:
        CommandError: If a directory cannot be listed.
    """
    one = isinstance(directory_or_paths, (str, os.PathLike))
    paths = [directory_or_paths] if one else directory_or_paths
    return Ranks([Path(path) for path in paths], pids, max_threads=max_threads).look()  # type: ignore[arg-type, union-attr]


class _Member:
    """One ring, and what was read of it."""

    def __init__(self, path: Path, first: int | None) -> None:
        self._path = path
        self._first = first
        self._reset()

    def look(self) -> Box | None:
        """Read what is new; return the box, or None if there is none."""
        before = self._tail.box
        try:
            new = self._tail.look()
            box = self._tail.box
            if before is not None and box is not None and _other(before, box):
                # Another ring has taken the name of this one.
                self._reset()
                new = self._tail.look()
        except BlackBoxError:
            return self._tail.box
        self._recent.add(new)
        return self._tail.box

    def state(self, box: Box, max_threads: int) -> RankState:
        recent = self._recent
        crumbs = _crumbs(self._path)
        return RankState(
            rank=box.rank,
            world_size=box.world_size,
            pid=box.pid,
            host=box.host,
            ring=box.path,
            process=self._process(box, max_threads),
            pulse=_pulse(self._path),
            last=recent.last(),
            note=recent.error_note,
            crumbs=crumbs or (),
            leaves_crumbs=crumbs is not None,
            closed=recent.closed,
            started_ns=box.started_ns,
            verdicts=recent.verdicts(),
            divergences=recent.divergences,
            counted_from=self._tail.counted_from,
            missed=self._tail.missed,
            looked_ns=time.time_ns(),
        )

    def _reset(self) -> None:
        self._tail = Tail(self._path, self._first)
        self._recent = Recent()
        self._opened_ns: int | None = None

    def _process(self, box: Box, max_threads: int) -> ProcessState:
        """Look at the process of a ring, if it is the one of that id.

        The lock of the ring says whether it lives. An id may be that of another process by now, or
        of another container.
        """
        if box.host != os.uname().nodename:
            return gone(box.pid) if self._recent.closed else elsewhere(box.pid)
        if box.running is False:
            left = process_state(box.pid, 0)
            return left if left.state == "zombie" and self._is_of(left) else gone(box.pid)
        state = process_state(box.pid, max_threads)
        if state.started_ticks and self._is_of(state):
            return state
        return elsewhere(box.pid) if box.running else gone(box.pid)

    def _is_of(self, state: ProcessState) -> bool:
        """Whether a process had started when the ring was opened."""
        if self._opened_ns is None:
            self._opened_ns = _opened_ns(self._path)
        asleep = time.clock_gettime_ns(time.CLOCK_BOOTTIME) - time.monotonic_ns()
        return state.started_ticks * _STARTED_TICKS_NS - asleep <= self._opened_ns + _DOUBT_NS


def _other(before: Box, box: Box) -> bool:
    return (before.pid, before.started_ns, before.rank) != (box.pid, box.started_ns, box.rank)


def _opened_ns(path: Path) -> int:
    try:
        descriptor = os.open(path, os.O_RDONLY | os.O_CLOEXEC | os.O_NONBLOCK)
    except OSError:
        return 0
    try:
        return int.from_bytes(os.pread(descriptor, 8, _MONOTONIC_OFFSET), "little")
    except OSError:
        return 0
    finally:
        os.close(descriptor)


def _pid_of(name: str) -> int:
    match = _PID_OF_NAME.match(name)
    return int(match[1]) if match else 0


def _pulse(path: Path) -> Pulse | None:
    try:
        return read_pulse(path)
    except BlackBoxError:
        return None


def _crumbs(path: Path) -> tuple[CrumbState, ...] | None:
    """Return how far replays in flight got; None if the process leaves no breadcrumbs."""
    found = beside(path)
    if found is None:
        return None
    try:
        return read_breadcrumbs(found, in_flight=True)
    except BlackBoxError:
        return None
