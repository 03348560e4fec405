"""All ranks of a job at one moment, and which of them are in trouble."""

from __future__ import annotations

import os
from collections.abc import Iterable, Sequence
from enum import Enum
from pathlib import Path

import msgspec

from graphguard.blackbox.pulse import Activity, Pulse
from graphguard.watch.looking.bundles import Bundle, bundles
from graphguard.watch.looking.ranks import Ranks, RankState
from graphguard.watch.looking.recent import LastOf

BEAT_LOST_NS = 2_000_000_000
"""How old the last beat of a watchdog is that is not let run. It beats ten times a second."""

SLOW_NS = 1_000_000_000
"""How long an activity is under way that is shown as a slow one."""


DEFAULT_LIMIT_NS = 5_000_000_000
DEFAULT_STARTUP_NS = 60_000_000_000
"""How long an activity may take in a process that has no watchdog, and so no limits of its own."""


class Doing(str, Enum):
    """What a rank is doing, in one word."""

    DIED = "died"
    """Its process is gone and did not say that it ended."""
    STOPPED = "stopped"
    STALLED = "stalled"
    """Something is under way for longer than its limit."""
    EXTENDED = "slow"
    """Something is under way that is slow by the process's own word, or as it was found to be."""
    BUSY = "busy"
    IDLE = "idle"
    """Nothing is under way."""
    ENDED = "ended"
    UNKNOWN = "not seen"
    """It has no pulse, or is of another machine."""

    def __str__(self) -> str:
        return self.value

    @property
    def trouble(self) -> bool:
        """Whether somebody should look at it."""
        return self in (Doing.DIED, Doing.STOPPED, Doing.STALLED)


class View(msgspec.Struct, frozen=True):
    """All ranks at one moment.

    Attributes:
        looked_ns: When, in nanoseconds since the epoch.
        ranks: Their states, by rank.
        bundles: The bundles of their stalls, newest first.
        where: What was looked at.
    """

    looked_ns: int
    ranks: tuple[RankState, ...]
    bundles: tuple[Bundle, ...] = ()
    where: str = ""

    @property
    def open_stalls(self) -> tuple[Bundle, ...]:
        """The stalls that are not known to be over."""
        going_on = not self.ended
        trouble = any(doing(state).trouble for state in self.ranks)
        return tuple(
            bundle
            for bundle in self.bundles
            if not bundle.over and (bundle.examined or (going_on and trouble))
        )

    @property
    def trouble(self) -> bool:
        """Whether there is a stall, or a rank that is gone without a word."""
        return any(doing(state).trouble for state in self.ranks) or bool(self.open_stalls)

    @property
    def ended(self) -> bool:
        """Whether nothing more is to come from any rank."""
        over = (Doing.ENDED, Doing.DIED)
        return bool(self.ranks) and all(doing(state) in over for state in self.ranks)


def doing(state: RankState) -> Doing:
    """Return what a rank is doing."""
    word = Doing.UNKNOWN
    if state.closed and not _is_in_something(state):
        word = Doing.ENDED
    elif not state.process.alive:
        word = Doing.DIED
    elif state.process.state == "stopped":
        word = Doing.STOPPED
    elif state.pulse is not None:
        word = _by_pulse(state.pulse)
    elif any(last.in_flight for last in state.last.values()):
        word = Doing.BUSY
    return word


def _is_in_something(state: RankState) -> bool:
    """Whether a process that has said that it ends is still there, and in something."""
    return state.process.alive and state.pulse is not None and bool(state.pulse.activities)


def _by_pulse(pulse: Pulse) -> Doing:
    if not pulse.activities:
        return Doing.IDLE
    if not any(is_stalled(pulse, activity) for activity in pulse.activities):
        return Doing.BUSY
    return Doing.EXTENDED if pulse.extended_ns else Doing.STALLED


def is_stalled(pulse: Pulse, activity: Activity) -> bool:
    """Whether an activity is under way for longer than its limit, an extension left aside."""
    limit = limit_ns(pulse, activity)
    watched = pulse.beat_age_ns is not None and pulse.beat_age_ns < BEAT_LOST_NS
    return limit <= (activity.watched_ns if watched else activity.age_ns)


def limit_ns(pulse: Pulse, activity: Activity) -> int:
    """Return how long an activity may take before it counts as stalled."""
    if activity.kind in ("startup", "capture"):
        return pulse.startup_ns or DEFAULT_STARTUP_NS
    return pulse.stall_ns or DEFAULT_LIMIT_NS


def main_activity(state: RankState) -> Activity | None:
    """Return what says most of what a rank is doing: a launch, or else what began last."""
    activities = state.pulse.activities if state.pulse and state.process.alive else ()
    launches = [each for each in activities if each.kind in ("replay", "eager")]
    return max(launches or activities, key=lambda each: -each.age_ns, default=None)


def main_group(state: RankState) -> tuple[str, LastOf] | None:
    """Return the group in which a rank is, or was last."""
    return max(
        state.last.items(), key=lambda item: (item[1].in_flight, item[1].time_ns), default=None
    )


class Watched:
    """Looks at a job again and again.

    Args:
        ranks: Its ranks.
        where: What they are called in the view.
    """

    def __init__(self, ranks: Ranks, where: str) -> None:
        self._ranks = ranks
        self._where = where

    def look(self) -> View:
        """Look at all ranks, and for bundles of stalls beside their rings.

        Raises:
            CommandError: If a directory cannot be listed.
        """
        states = self._ranks.look()
        since = min((state.started_ns for state in states), default=0)
        looked_ns = max((state.looked_ns for state in states), default=0)
        return View(looked_ns, states, _bundles(states, since), self._where)


def _bundles(states: Sequence[RankState], since_ns: int) -> tuple[Bundle, ...]:
    found = [bundle for folder in _folders(states) for bundle in bundles(folder, since_ns)]
    return tuple(sorted(found, key=lambda bundle: bundle.made_ns, reverse=True))


def _folders(states: Iterable[RankState]) -> list[Path]:
    return sorted({Path(os.path.dirname(os.path.abspath(state.ring))) for state in states})
