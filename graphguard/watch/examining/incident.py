"""A stall that is under way, as one examiner leaves it for another.

An examiner may be ended before the stall is. The next one finds the incident in the directory of
the rings and goes on with it, so that a stall has one bundle. The file is read as what a stranger
may have written.
"""

from __future__ import annotations

import os
import re
import stat
import time
from collections.abc import Iterable
from contextlib import suppress
from pathlib import Path

import msgspec

from graphguard.errors import GraphguardError
from graphguard.files import write_private
from graphguard.watch.looking.processes import process_state
from graphguard.watch.looking.ranks import RankState

MAX_BYTES = 1_000_000
SAME_NS = 500_000_000
"""Two looks may differ by so much about when an activity began…"""

_AGE_ERROR = 0.5
"""… and by this share of its age, which is counted by the clock of a processor."""

_JOB = re.compile(r"[A-Za-z0-9_.-]{1,120}", re.ASCII)


class Stuck(msgspec.Struct, frozen=True):
    """An activity that does not end.

    Attributes:
        rank: Whose.
        pid: Its process.
        started_ticks: When that process started, which tells it from a later one of the same id.
        kind: The kind of the activity.
        step: Its step.
        began_ns: When it began, by the monotonic clock.
        looked_ns: When that was seen, by the same clock.
    """

    rank: int
    pid: int
    started_ticks: int
    kind: str
    step: int
    began_ns: int
    looked_ns: int


class Incident(msgspec.Struct, frozen=True):
    """A stall that is under way.

    Attributes:
        job: The job.
        stall_class: Its class, as it was told.
        ranks: Those it is about.
        since_ns: When it began, in nanoseconds since the epoch.
        told: Whether it was told in the log.
        bundle: The name of its bundle; empty while there is none.
        stuck: What does not end.
        over: Whether it has ended.
        slow: Whether it is slow, and no stall so far.
        acted: Whether what is to be done about it was done.
        format: The version of this.
    """

    job: str
    stall_class: str
    ranks: tuple[int, ...]
    since_ns: int
    told: bool
    bundle: str
    stuck: tuple[Stuck, ...]
    over: bool = False
    slow: bool = False
    acted: bool = False
    format: int = 1


def stuck_of(states: Iterable[RankState], least_ns: int = 0) -> tuple[Stuck, ...]:
    """Return what is under way in all ranks, for as long as that at least."""
    now = time.monotonic_ns()
    return tuple(
        Stuck(
            state.rank,
            state.pid,
            state.process.started_ticks,
            activity.kind,
            activity.step,
            now - activity.age_ns,
            now,
        )
        for state in states
        if state.pulse is not None and state.process.alive
        for activity in state.pulse.activities
        if activity.age_ns >= least_ns
    )


def still_stuck(known: Iterable[Stuck], now: Iterable[Stuck]) -> tuple[Stuck, ...]:
    """Return those of some activities that are still under way."""
    there = list(now)
    return tuple(each for each in known if any(_same(each, other) for other in there))


def _same(one: Stuck, other: Stuck) -> bool:
    return (one.rank, one.pid, one.started_ticks, one.kind, one.step) == (
        other.rank,
        other.pid,
        other.started_ticks,
        other.kind,
        other.step,
    ) and abs(one.began_ns - other.began_ns) <= SAME_NS + _AGE_ERROR * max(
        one.looked_ns - one.began_ns, other.looked_ns - other.began_ns
    )


def path_of(directory: Path, job: str) -> Path | None:
    """Return the file of a job's incident; None if the job has no name that a file could have."""
    if not _JOB.fullmatch(job) or job.startswith("."):
        return None
    return directory / f"stall-{job}.incident.json"


def keep(directory: Path, incident: Incident) -> None:
    """Write an incident for whoever comes after this process. It goes on without, if it must."""
    path = path_of(directory, incident.job)
    if path is not None:
        with suppress(GraphguardError, OSError):
            write_private(path, msgspec.json.encode(incident))


def kept(directory: Path, job: str) -> Incident | None:
    """Return the incident of a job that is under way; None if there is none to go on with."""
    path = path_of(directory, job)
    if path is None:
        return None
    try:
        incident = msgspec.json.decode(_own_file(path), type=Incident)
    except (OSError, msgspec.DecodeError, ValueError):
        return None
    if incident.job != job or incident.over or incident.format != 1:
        return None
    if incident.bundle and not is_bundle(directory, incident.bundle):
        return msgspec.structs.replace(incident, bundle="")
    return incident


def is_bundle(directory: Path, name: str) -> bool:
    """Return whether a name is that of a bundle of this user in the directory."""
    from graphguard.watch.evidence.bundle import is_bundle_name

    if not is_bundle_name(name):
        return False
    try:
        status = os.lstat(directory / name)
    except OSError:
        return False
    return stat.S_ISDIR(status.st_mode) and status.st_uid == os.geteuid()


def append_later(directory: Path, bundle: str, event: str, **told: object) -> None:
    """Add to a bundle what came later. Nothing depends on it."""
    if bundle and is_bundle(directory, bundle):
        from graphguard.watch.evidence.bundle import append

        with suppress(GraphguardError, OSError):
            append(directory / bundle, event, **told)


def _own_file(path: Path) -> bytes:
    flags = os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC
    descriptor = os.open(path, flags)
    try:
        status = os.fstat(descriptor)
        if not stat.S_ISREG(status.st_mode) or status.st_uid != os.geteuid():
            raise ValueError("not a file of this user")
        if status.st_size > MAX_BYTES:
            raise ValueError("too large")
        return os.read(descriptor, MAX_BYTES)
    finally:
        os.close(descriptor)


def processes_left(stuck: Iterable[Stuck]) -> bool:
    """Return whether any process still lives that something was under way in."""
    for pid, ticks in {(each.pid, each.started_ticks) for each in stuck}:
        state = process_state(pid, 0)
        if state.alive and state.started_ticks == ticks:
            return True
    return False
