"""The words of a stall: its class, and what a verdict says of it."""

from __future__ import annotations

from enum import Enum

import msgspec

FORMAT = 1
"""The version of ``verdict.json``. Fields may be added; what is there keeps its meaning."""


class StallClass(str, Enum):
    """What kind of stall it is."""

    RANKS_DIVERGED = "ranks-diverged"
    """Ranks are in different steps or launches, or one has finished what others wait in."""
    HOST_STUCK = "host-stuck"
    """A rank has not launched what the others wait in, or is in it and waits for nobody."""
    DEVICE = "device"
    """All have launched the same, and it does not end."""
    PROCESS_DIED = "process-died"
    STOPPED = "stopped"
    """A process is not let run: by SIGSTOP, a debugger, or a freezer."""
    WORKER_ERROR = "worker-error"
    """A rank has raised an error in its step, and the others wait for it."""
    SLOW = "slow"
    """Something is under way that ends by itself. Not a stall."""
    UNKNOWN = "unknown"

    def __str__(self) -> str:
        return self.value


class Evidence(msgspec.Struct, frozen=True):
    """Something that was seen.

    Attributes:
        what: In words.
        source: Where it was seen: a ring, a pulse, a file of ``/proc``, a stack.
    """

    what: str
    source: str


class Collective(msgspec.Struct, frozen=True):
    """How far a replay got.

    Attributes:
        position: The collective that it waits in, from 1.
        of: How many the graph holds.
        operation: What it is.
    """

    position: int
    of: int
    operation: str

    def __str__(self) -> str:
        return f"{self.operation} ({self.position} of {self.of})"


class Suspect(msgspec.Struct, frozen=True):
    """The activity that a watchdog found too old.

    Attributes:
        rank: Whose.
        pid: Its process.
        kind: The kind of the activity.
        watched_ns: For how long the watchdog has seen it under way.
    """

    rank: int
    pid: int
    kind: str = ""
    watched_ns: int = 0


class StallVerdict(msgspec.Struct, frozen=True):
    """What a stall is, as far as it can be known.

    Attributes:
        stall_class: The class.
        ranks: Those that it is about; empty where nothing tells the ranks apart.
        waiting: Ranks that wait for others, or for their device. Never those above.
        group: The group of ranks that it is in; empty if none is known.
        step: The step of that group that does not end; 0 if steps are not numbered.
        role: The role of the graph, or what the program calls the activity.
        graph: What is under way: ``replay of target 16x2``.
        batch: The batch descriptor.
        seconds: For how long it has been under way.
        since: When it began, as ISO 8601 in UTC.
        collective: What the replay waits in, where breadcrumbs tell.
        where: The call that the blamed rank is in, as its stack says.
        sentence: All of it in words.
        evidence: What was seen.
        not_known: What could not be seen, and why.
        format: The version of this.
    """

    stall_class: StallClass
    ranks: tuple[int, ...]
    waiting: tuple[int, ...]
    group: str
    step: int
    role: str
    graph: str
    batch: str
    seconds: float
    since: str
    collective: Collective | None
    where: str
    sentence: str
    evidence: tuple[Evidence, ...]
    not_known: tuple[str, ...]
    format: int = FORMAT
