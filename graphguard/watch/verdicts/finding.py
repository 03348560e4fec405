"""Which job a process belongs to: found by the black box that it holds open."""

from __future__ import annotations

import os
import time
from collections import deque
from pathlib import Path

from graphguard.blackbox import reading
from graphguard.blackbox.choosing import ring_files
from graphguard.blackbox.directory import is_ring_name
from graphguard.blackbox.reading import Box
from graphguard.errors import BlackBoxError, CommandError
from graphguard.watch.looking.processes import family, process_state

MAX_PROCESSES = 256
"""Processes that are asked, those that a process has started included."""

MAX_DESCRIPTORS = 65_536

_ONE_START_NS = 600_000_000_000
"""Within what time the processes of a job open their rings, where it is not known what started
them."""

_TICK_NS = 1_000_000_000 // os.sysconf("SC_CLK_TCK")


def ring_of(pid: int) -> Path:
    """Return the ring that a process writes, or that a process which it has started writes.

    Raises:
        CommandError: If there is no such process, if this user may not look at it, or if neither
            it nor any of its children has a black box.
    """
    if not process_state(pid, 0).alive:
        raise CommandError(
            f"there is no process {pid}", hint="name a process of the job, or its directory"
        )
    waiting, asked, refused = deque([pid]), 0, False
    while waiting and asked < MAX_PROCESSES:
        each = waiting.popleft()
        asked += 1
        try:
            ring = _open_ring(each)
        except PermissionError:
            refused = True
            continue
        if ring is not None:
            return ring
        waiting += [child.pid for child in process_state(each).children]
    if refused:
        raise CommandError(
            f"the open files of process {pid} cannot be listed",
            hint="run this as the user of that process, or name the directory",
        )
    raise CommandError(
        f"process {pid} has no black box, nor has a process that it has started",
        hint="name the directory that GRAPHGUARD_DIR was set to, or where the log says that the "
        "black box is",
    )


def job_of(ring: Path) -> frozenset[int]:
    """Return the processes of the job that a ring belongs to, as far as they have rings beside it.

    Of each rank it is the one that has the same parent, or else is of the same session, or else
    opened its ring closest in time to this one.

    Raises:
        BlackBoxError: If the ring cannot be read.
        CommandError: If its directory cannot be listed.
    """
    own = reading.read(ring, 1)
    nearest: dict[int, Box] = {own.rank: own}
    earliest = _begun_ns(own)
    for file in ring_files(ring.parent):
        try:
            box = reading.read(file, 1)
        except BlackBoxError:
            continue
        if box.world_size != own.world_size or box.rank == own.rank:
            continue
        if box.running is False and box.started_ns < earliest:
            continue
        known = nearest.get(box.rank)
        if known is None or _distance(box, own) < _distance(known, own):
            nearest[box.rank] = box
    return frozenset(box.pid for box in nearest.values())


def _begun_ns(own: Box) -> int:
    """Return when the job of a ring began: no rank of it has opened a ring before its parent."""
    parent, _ = family(own.pid) if own.running is not False else (0, 0)
    started = process_state(parent, 0).started_ticks if parent > 1 else 0
    if not started:
        return own.started_ns - _ONE_START_NS
    age_ns = time.clock_gettime_ns(time.CLOCK_BOOTTIME) - started * _TICK_NS
    return time.time_ns() - age_ns - _TICK_NS


def _distance(box: Box, own: Box) -> tuple[bool, bool, int]:
    parent, session = family(box.pid) if box.running is not False else (0, 0)
    own_parent, own_session = family(own.pid)
    apart = abs(box.started_ns - own.started_ns)
    return parent != own_parent, session != own_session, apart


def _open_ring(pid: int) -> Path | None:
    """Return the ring that a process holds open.

    Raises:
        PermissionError: If its files cannot be listed.
    """
    folder = f"/proc/{pid}/fd"
    try:
        descriptors = os.listdir(folder)[:MAX_DESCRIPTORS]
    except PermissionError:
        raise
    except OSError:
        return None
    for descriptor in descriptors:
        try:
            target = os.readlink(f"{folder}/{descriptor}")
        except OSError:
            continue
        path = Path(target)
        if path.is_absolute() and is_ring_name(path.name) and path.is_file():
            return path
    return None
