"""The counts themselves. Steps only add to integers here."""

from __future__ import annotations

import os
import threading
from collections import Counter
from collections.abc import Callable, Mapping
from time import monotonic_ns
from typing import TYPE_CHECKING

from graphguard.log import logger
from graphguard.metrics.samples import (
    CHECK_BUCKETS,
    CHECK_SHIFT,
    MAX_EVENTS,
    MAX_ROLES,
    STEP_BUCKETS,
    STEP_SHIFT,
    Durations,
    EventName,
    ProcessSamples,
    RoleSamples,
    label,
)
from graphguard.session import process_rank
from graphguard.verdict import Action, Reason, Verdict

if TYPE_CHECKING:
    from graphguard._core import Launches

_OTHER = "other"
SAMPLED_EVERY = 256
"""Of how many checks one is timed."""


class _Histogram:
    """Counts durations by powers of two: the bucket is found without a search."""

    __slots__ = ("_last", "_shift", "counts", "nanoseconds")

    def __init__(self, shift: int, buckets: int) -> None:
        self.counts = [0] * buckets
        self.nanoseconds = 0
        self._shift = shift
        self._last = buckets - 1

    def add(self, nanoseconds: int) -> None:
        bucket = (nanoseconds >> self._shift).bit_length()
        self.counts[bucket if bucket < self._last else self._last] += 1
        self.nanoseconds += nanoseconds

    def durations(self) -> Durations:
        return Durations(tuple(self.counts), self.nanoseconds)


class RoleCounts:
    """The counts of one role, for the thread that runs its steps.

    They are not locked: two threads that run steps of one role at once may lose a count.
    """

    __slots__ = ("_began", "_in_flight", "_rows", "_steps", "launches", "sources")

    def __init__(self) -> None:
        self.reset()

    def reset(self) -> None:
        """Begin again at 0, without sources."""
        self.sources: list[Callable[[], Mapping[Verdict, int]]] = []
        self.launches: list[Launches] = []
        self._rows = [[0] * len(Reason) for _ in Action]
        self._steps = _Histogram(STEP_SHIFT, STEP_BUCKETS)
        self._in_flight = 0
        self._began = 0

    def check(self, action: Action, reason: Reason) -> None:
        """Count a verdict."""
        self._rows[action][reason] += 1

    def step(self) -> None:
        """Say that a step begins that launches no graph."""
        self._began = monotonic_ns()

    def replay_begin(self) -> None:
        """Say that the launch of a graph begins, and with it a step."""
        self._began = monotonic_ns()
        self._in_flight = 1

    def replay_end(self) -> None:
        """Say that the launch has returned. The device may still be at it."""
        if self._in_flight:
            self._in_flight = 0
            self._steps.add(monotonic_ns() - self._began)

    def samples(self, role: str) -> RoleSamples:
        """Return what is counted so far."""
        checks: Counter[tuple[str, str]] = Counter()
        for action, row in zip(Action, self._rows, strict=True):
            for reason, count in zip(Reason, row, strict=True):
                checks[str(action), str(reason)] += count
        for source in self.sources:
            for verdict, count in source().items():
                checks[str(verdict.action), str(verdict.reason)] += count
        return RoleSamples(
            role,
            tuple((*key, count) for key, count in checks.items() if count > 0),
            self._in_flight + sum(launches.in_flight for launches in self.launches),
            max(self._began, *(launches.began for launches in self.launches), 0),
            self._durations(),
        )

    def _durations(self) -> Durations:
        """Return how long launches took, with those that are marked in native code."""
        counts, nanoseconds = self._steps.counts, self._steps.nanoseconds
        for launches in self.launches:
            counts = [one + other for one, other in zip(counts, launches.counts, strict=True)]
            nanoseconds += launches.nanoseconds
        return Durations(tuple(counts), nanoseconds)


class Metrics:
    """What this process has counted.

    No method raises or waits, whatever it is given.

    Attributes:
        rank: The label ``rank`` of all samples; without one, the rank that torch.distributed or
            ``RANK`` says. Two processes of a run with one label are added up.
        first_use: Called when the first count is asked for, to begin what costs something.
    """

    def __init__(self, first_use: Callable[[], object] = lambda: None) -> None:
        self.rank: str | None = None
        self.first_use = first_use
        self._roles: dict[str, RoleCounts] = {}
        self.reset()

    def reset(self) -> None:
        """Begin again at 0, as a forked child does."""
        self._lock = threading.Lock()
        for counts in self._roles.values():
            counts.reset()
        self._events: Counter[tuple[EventName, tuple[str, ...]]] = Counter()
        self._checks = _Histogram(CHECK_SHIFT, CHECK_BUCKETS)
        self._until_sampled = 0
        self._told = False

    @property
    def used(self) -> bool:
        """Whether anything has asked for a count."""
        return bool(self._roles or self._events)

    def role(self, role: str) -> RoleCounts:
        """Return the counts of a role. Keep it where every nanosecond counts."""
        counts = self._roles.get(role)
        if counts is None:
            with self._lock:
                name = label(role)
                if name not in self._roles and len(self._roles) >= MAX_ROLES:
                    name = _OTHER
                counts = self._roles.setdefault(name, RoleCounts())
            self.first_use()
        return counts

    def check(self, role: str, action: Action, reason: Reason) -> None:
        """Count a verdict."""
        self.role(role).check(action, reason)

    def watch(self, role: str, source: Callable[[], Mapping[Verdict, int]]) -> None:
        """Count the verdicts that somebody else counts already, at no cost to a step.

        Args:
            role: Whose verdicts they are.
            source: Returns every verdict given so far, with how often. It is called from another
                thread, about once a second.
        """
        self.role(role).sources.append(source)

    def watch_launches(self, role: str, launches: Launches) -> None:
        """Count the launches that are marked in native code, at no cost to a step.

        Args:
            role: Whose launches they are.
            launches: Their marks, with the buckets of :data:`STEP_SHIFT` and :data:`STEP_BUCKETS`.
        """
        self.role(role).launches.append(launches)

    def step(self, role: str) -> None:
        """Say that a step of a role begins that launches no graph."""
        self.role(role).step()

    def replay_begin(self, role: str) -> None:
        """Say that the launch of a graph begins."""
        self.role(role).replay_begin()

    def replay_end(self, role: str) -> None:
        """Say that the launch has returned."""
        self.role(role).replay_end()

    def is_sampled(self) -> bool:
        """Return whether the next check is to be timed: one in 256."""
        if self._until_sampled:
            self._until_sampled -= 1
            return False
        self._until_sampled = SAMPLED_EVERY - 1
        return True

    def check_took(self, nanoseconds: int) -> None:
        """Count how long a sampled check took."""
        self._checks.add(nanoseconds)

    def divergence(self, role: str, kind: object) -> None:
        """Count a divergence of the ranks, by the name of its kind."""
        self._count("divergences", role, kind)

    def vote(self, outcome: object) -> None:
        """Count a vote of the ranks, by its outcome."""
        self._count("votes", outcome)

    def recapture(self, role: str) -> None:
        """Count a graph that was captured again."""
        self._count("recaptures", role)

    def quarantine(self, role: str) -> None:
        """Count a graph that is not launched any more."""
        self._count("quarantined", role)

    def release(self, role: str) -> None:
        """Count a graph that is no longer in quarantine."""
        self._count("quarantined", role, by=-1)

    def degraded(self, role: str, reason: object) -> None:
        """Count a step that ran in another way than the engine had chosen."""
        self._count("degraded", role, reason)

    def padding_violation(self, invariant: object) -> None:
        """Count padded slots that break an invariant, by its name."""
        self._count("padding_violations", invariant)

    def samples(self) -> ProcessSamples:
        """Return what is counted so far."""
        with self._lock:
            roles = list(self._roles.items())
            events = list(self._events.items())
        return ProcessSamples(
            pid=os.getpid(),
            rank=label(self.rank if self.rank is not None else process_rank()[0]),
            published=monotonic_ns(),
            roles=tuple(sample for item in roles if (sample := self._role_samples(*item))),
            events=tuple((*key, max(0, count)) for key, count in events),
            checks=self._checks.durations(),
        )

    def _role_samples(self, role: str, counts: RoleCounts) -> RoleSamples | None:
        try:
            return counts.samples(role)
        except Exception:  # noqa: BLE001 - a source may be anything, and must not end the thread
            if not self._told:
                self._told = True
                logger().warning("the counts of %s could not be read", role, exc_info=True)
            return None

    def _count(self, event: EventName, *labels: object, by: int = 1) -> None:
        key = event, tuple(map(label, labels))
        with self._lock:
            if key not in self._events and len(self._events) >= MAX_EVENTS:
                key = event, tuple(_OTHER for _ in labels)
            first = not self._events
            self._events[key] += by
        if first:
            self.first_use()
