"""Following a stall that was told until it is over."""

from __future__ import annotations

import time
from collections.abc import Sequence

import msgspec

from graphguard.audit.findings import ranks_text
from graphguard.watch.examining import incident as incidents
from graphguard.watch.examining.examined_job import Looks, Task
from graphguard.watch.examining.incident import Incident, Stuck, still_stuck, stuck_of
from graphguard.watch.examining.telling import over_line, tell
from graphguard.watch.looking.processes import process_state
from graphguard.watch.looking.ranks import RankState
from graphguard.watch.verdicts.stall import StallClass, StallVerdict
from graphguard.watch.verdicts.verdict import verdict

POLL_SECONDS = 0.5
MAX_CHANGES = 20
"""Changes of the class that are told. A stall that changes more often is told no more."""

_CERTAIN_WITHOUT_STACKS = frozenset(
    {StallClass.PROCESS_DIED, StallClass.STOPPED, StallClass.WORKER_ERROR}
)


class Following:
    """Follows one incident.

    Args:
        task: Which job.
        looks: At its ranks.
        incident: What was told.
        states: The last look.
        until: When to give up, by the monotonic clock.
    """

    def __init__(
        self,
        task: Task,
        looks: Looks,
        incident: Incident,
        states: Sequence[RankState],
        until: float,
    ) -> None:
        self._task = task
        self._looks = looks
        self._incident = incident
        self._states = tuple(states)
        self._until = until
        self._class = (incident.stall_class, incident.ranks)
        self._changes = 0

    def run(self) -> None:
        """Wait until all that was stuck has ended, or its processes have."""
        left = self._incident.stuck
        while time.monotonic() < self._until:
            time.sleep(POLL_SECONDS)
            before, self._states = self._states, self._looks.look()
            still = still_stuck(left, stuck_of(self._states))
            self._tell_change(before)
            if not still:
                self._over(left)
                return
            left = still
        self._end("followed", "it is not looked at any more")

    def _over(self, last: Sequence[Stuck]) -> None:
        gone = sorted({each.rank for each in last if not _lives(each)})
        seconds = (time.time_ns() - self._incident.since_ns) / 1e9
        if len(gone) == len({each.rank for each in last}):
            self._end("gone", f"the processes of {ranks_text(gone)} are gone", seconds=seconds)
        else:
            self._end("recovered", f"recovered after {seconds:.1f} s", seconds=seconds)

    def _end(self, event: str, how: str, **told: object) -> None:
        incident, directory = self._incident, self._task.directory
        bundle = str(directory / incident.bundle) if incident.bundle else ""
        tell(over_line(incident.stall_class, how, bundle))
        incidents.append_later(directory, incident.bundle, event, how=how, **told)
        incidents.keep(directory, msgspec.structs.replace(incident, over=True))

    def _tell_change(self, before: Sequence[RankState]) -> None:
        """Tell what has become of it: a rank that was stuck has died since, or was stopped."""
        told = verdict(
            before,
            self._states,
            suspect=self._task.suspect,
            members=self._task.members,
            may_be_slow=False,
        )
        now = (str(told.stall_class), told.ranks)
        if told.stall_class not in _CERTAIN_WITHOUT_STACKS or now == self._class:
            return
        self._class = now
        self._changes += 1
        if self._changes <= MAX_CHANGES:
            tell(f"graphguard: STALL [{told.stall_class}] now: {told.sentence}")
            self._append(told)

    def _append(self, told: StallVerdict) -> None:
        incidents.append_later(
            self._task.directory,
            self._incident.bundle,
            "changed",
            stall_class=str(told.stall_class),
            ranks=list(told.ranks),
            sentence=told.sentence,
        )


def _lives(stuck: Stuck) -> bool:
    state = process_state(stuck.pid, 0)
    return state.alive and state.started_ticks == stuck.started_ticks
