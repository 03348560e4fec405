"""The pulse: what a process is doing right now, read from its black box.

The process writes it with the ring, and it stays there when the process is gone. What is not a
launch, which the ring's records begin and end, is told through :mod:`graphguard.watch.activity`.
"""

from __future__ import annotations

import os
from enum import IntEnum
from typing import TYPE_CHECKING

import msgspec

from graphguard import _core
from graphguard.blackbox.directory import is_held
from graphguard.blackbox.events import NO_NAME
from graphguard.blackbox.records import batch_text
from graphguard.errors import BlackBoxError

if TYPE_CHECKING:
    pass


class ActivityKind(IntEnum):
    """What a process can be in. The numbers are those of ``csrc/core/pulse_format.h``."""

    REPLAY = 1
    """The call that launches a graph."""
    EAGER = 2
    """A pass that is run eagerly."""
    STEP = 3
    """A step of an engine, with all that belongs to it on this rank."""
    OUTPUT = 4
    """The wait for what a step computes."""
    STARTUP = 5
    """What an engine does once before it serves."""
    CAPTURE = 6
    OTHER = 7

    def __str__(self) -> str:
        return self.name.lower()


class Activity(msgspec.Struct, frozen=True):
    """One thing that is under way.

    Attributes:
        kind: An :class:`ActivityKind` in lower case.
        name: The role of the graph, or what the program calls it.
        group: The group of ranks; empty if there is none.
        step: The step in that group; 0 if there is none.
        digest: The first 64 bits of the digest of what is launched.
        batch: The batch descriptor as text.
        age_ns: Since it began, by the clock of the machine.
        watched_ns: For how long the process's own watchdog has seen it under way. Time in which
            the process was not let run does not count.
        thread: The thread that is in it, as the kernel numbers it.
    """

    kind: str
    name: str
    group: str
    step: int
    digest: int
    batch: str
    age_ns: int
    watched_ns: int
    thread: int


class Pulse(msgspec.Struct, frozen=True):
    """What a process is doing.

    Attributes:
        activities: What is under way, oldest first.
        beat_age_ns: Since the watchdog last looked; None where none runs.
        stall_ns: How long an activity may take before it is looked at.
        startup_ns: The same for an engine's start.
        extended_ns: For how long what is under way is slow by its own word; 0 if it is not.
        extended_why: What it says that it does.
        stack_signal: The signal on which the process writes its stacks; 0 for none.
        stacks_path: The file they go to, in the directory of the ring.
        ended: How many activities have ended: it grows while there is progress.
        stalls: How many stalls the watchdog has told.
        missed_ns: For how long, in all, the watchdog was not let run.
    """

    activities: tuple[Activity, ...]
    beat_age_ns: int | None
    stall_ns: int
    startup_ns: int
    extended_ns: int
    extended_why: str
    stack_signal: int
    stacks_path: str
    ended: int
    stalls: int
    missed_ns: int


def read_pulse(path: str | os.PathLike[str]) -> Pulse | None:
    """Read the pulse in a ring.

    Returns:
        None if the ring is of a version that had no pulse, or is not one.

    Raises:
        BlackBoxError: If the file cannot be read.
    """
    try:
        descriptor = os.open(path, os.O_RDONLY | os.O_CLOEXEC | os.O_NONBLOCK)
    except OSError as error:
        raise _unreadable(path, error) from error
    try:
        live = is_held(descriptor) is True
        copies = [os.pread(descriptor, _core.PULSE_BYTES, 0) for _ in range(2)]
    except OSError as error:
        raise _unreadable(path, error) from error
    finally:
        os.close(descriptor)
    found = _core.read_pulse(copies[0], copies[1], live)
    return None if found is None else _pulse(*found)


def _pulse(rows: list[_core.ActivityRow], texts: list[str | None], head: _core.PulseHead) -> Pulse:
    names = {number: text for number, text in enumerate(texts) if text is not None}
    names[NO_NAME] = ""

    def name(number: int) -> str:
        return names.get(number) or ("" if number == NO_NAME else f"name {number}")

    beat_age, stall, startup, stalls, missed, extended, why, signal, stacks, ended = head
    return Pulse(
        activities=tuple(
            Activity(
                kind=_kind(kind),
                name=name(role),
                group=name(group),
                step=step,
                digest=digest,
                batch=batch_text(num_reqs, query_len, num_tokens, phase),
                age_ns=age,
                watched_ns=watched,
                thread=thread,
            )
            for (
                kind,
                role,
                group,
                step,
                digest,
                num_reqs,
                query_len,
                num_tokens,
                phase,
                thread,
                age,
                watched,
            ) in rows
        ),
        beat_age_ns=beat_age,
        stall_ns=stall,
        startup_ns=startup,
        extended_ns=extended,
        extended_why=name(why),
        stack_signal=signal,
        stacks_path=name(stacks),
        ended=ended,
        stalls=stalls,
        missed_ns=missed,
    )


def _kind(number: int) -> str:
    try:
        return str(ActivityKind(number))
    except ValueError:
        return f"activity {number}"


def _unreadable(path: str | os.PathLike[str], error: OSError) -> BlackBoxError:
    return BlackBoxError(
        f"cannot read {os.fspath(path)}: {error.strerror}",
        hint="check the path and its permissions",
    )
