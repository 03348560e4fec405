"""What an examiner was told to look at, and its looks."""

from __future__ import annotations

import os
import time
from collections.abc import Sequence
from contextlib import suppress
from pathlib import Path

import msgspec

from graphguard.blackbox.pulse import ActivityKind
from graphguard.errors import CommandError
from graphguard.watch.evidence.ledger_summary import Ledger
from graphguard.watch.looking.processes import Child, process_state
from graphguard.watch.looking.ranks import Ranks, RankState
from graphguard.watch.verdicts.slowness import with_named_sleeps, with_own_reads
from graphguard.watch.verdicts.stall import Suspect

_GENERATIONS = 3
"""A compiler's driver starts the compiler proper, and a build tool starts the driver."""

_MAX_CHILDREN = 64
_MAX_MAPS = 16 * 2**20


class Task(msgspec.Struct, frozen=True):
    """What an examiner was started for.

    Attributes:
        directory: Where the rings are, and where the evidence goes.
        job: Names the job among those that use the directory.
        suspect: The activity that is too old.
        ledgers: Those of the ranks.
        lock: The descriptor of the job's lock; -1 if there is none.
    """

    directory: Path
    job: str
    suspect: Suspect
    ledgers: tuple[Ledger, ...] = ()
    lock: int = -1

    @property
    def pids(self) -> frozenset[int] | None:
        """The processes of the job on this node; None if only the directory tells."""
        pids = {pid for ledger in self.ledgers for pid in ledger.pids if pid}
        return frozenset({*pids, self.suspect.pid}) if pids else None

    @property
    def members(self) -> dict[str, frozenset[int]]:
        """The processes of each group of ranks."""
        return {ledger.group: frozenset(ledger.pids) for ledger in self.ledgers}


def kind_name(lane: str) -> str:
    """Return the kind of an activity by its number or its name."""
    if not lane.isascii() or not lane.isdigit() or len(lane) > 3:
        return lane
    with suppress(ValueError):
        return str(ActivityKind(int(lane)))
    return f"activity {lane}"


class Looks:
    """Looks at all ranks of a job, again and again.

    Args:
        task: Which job.
    """

    def __init__(self, task: Task) -> None:
        self._ranks = Ranks([task.directory], task.pids)

    def look(self) -> tuple[RankState, ...]:
        """Return what each rank is doing; nothing if the directory is gone."""
        try:
            states = self._ranks.look()
        except CommandError:
            return ()
        return tuple(_looked_closer(state) for state in of_one_run(states))


def of_one_run(states: Sequence[RankState]) -> tuple[RankState, ...]:
    """Leave out the rings that an earlier run has left behind in the directory."""
    opened = [state.started_ns for state in states if state.process.alive]
    if not opened:
        return tuple(states)
    return tuple(
        state for state in states if state.process.alive or newest_ns(state) >= min(opened)
    )


def newest_ns(state: RankState) -> int:
    """Return when a rank recorded something last, as far as that is known."""
    return max([state.started_ns, *(last.time_ns for last in state.last.values())])


def uses_cuda(pid: int) -> bool:
    """Return whether a process has loaded the CUDA driver."""
    with suppress(OSError), open(f"/proc/{pid}/maps", "rb") as file:
        return b"/libcuda.so" in file.read(_MAX_MAPS)
    return False


def wait(seconds: float, since: float) -> None:
    """Sleep until so long after a moment of the monotonic clock."""
    time.sleep(max(0.0, since + seconds - time.monotonic()))


def _looked_closer(state: RankState) -> RankState:
    if not state.process.alive or state.host != os.uname().nodename or state.pid <= 0:
        return state
    threads = [each.thread for each in state.pulse.activities] if state.pulse is not None else []
    return with_descendants(with_own_reads(with_named_sleeps(state, [state.pid, *threads])))


def with_descendants(state: RankState) -> RankState:
    """Count the children of its children to those of a process, and theirs."""
    children = state.process.children
    if not children:
        return state
    process = msgspec.structs.replace(state.process, children=_with_their_own(children))
    return msgspec.structs.replace(state, process=process)


def _with_their_own(children: Sequence[Child]) -> tuple[Child, ...]:
    """Return children, their children and theirs."""
    found = {child.pid: child for child in children}
    generation = list(children)
    for _ in range(_GENERATIONS):
        younger: list[Child] = []
        for child in generation:
            if len(found) + len(younger) >= _MAX_CHILDREN:
                break
            younger += process_state(child.pid, 1).children
        generation = [child for child in younger if child.pid not in found]
        found.update((child.pid, child) for child in generation)
    return tuple(found.values())
