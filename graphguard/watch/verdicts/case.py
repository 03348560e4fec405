"""One stall as it is looked at: where the ranks stand, and in which step of which group it is."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Mapping, Sequence

import msgspec

from graphguard.audit.findings import agree, ranks_text
from graphguard.blackbox.pulse import Activity
from graphguard.watch.stack_traces.wait_frames import Wait
from graphguard.watch.verdicts.stall import Suspect
from graphguard.watch.verdicts.standing import LAUNCHES, Place, Standing, engine_step, place_in


class Case(msgspec.Struct, frozen=True):
    """What the rules of a verdict look at.

    Attributes:
        standings: Of all ranks, in the order of ranks.
        suspect: The activity that a watchdog found too old.
        group: The group of ranks that it is in; empty if none is known.
        places: Where ranks are in that group, by process.
        members: Ranks of that group: those that did something in it, or belong to it by its ledger.
        step: The step in which ranks wait; 0 if steps are not numbered.
    """

    standings: tuple[Standing, ...]
    suspect: Suspect | None
    group: str
    places: dict[int, Place]
    members: tuple[Standing, ...]
    step: int

    @classmethod
    def of(
        cls,
        standings: tuple[Standing, ...],
        suspect: Suspect | None,
        groups: Mapping[str, frozenset[int]],
    ) -> Case:
        """Look at where ranks stand."""
        group = _group_of(standings, suspect)
        places = {
            each.state.pid: place
            for each in standings
            if (place := place_in(each, group)) is not None
        }
        known = groups.get(group, frozenset())
        members = tuple(
            each
            for each in standings
            if each.state.pid in places or each.state.pid in known or _belongs(each, group)
        )
        return cls(standings, suspect, group, places, members, _step_of(members, places))

    @property
    def alive(self) -> tuple[Standing, ...]:
        """Ranks whose processes can do something."""
        return tuple(each for each in self.standings if not each.gone and not each.stopped)

    @property
    def waiting(self) -> tuple[Standing, ...]:
        """Ranks that are in something that does not end."""
        return tuple(each for each in self.standings if each.waits)

    @property
    def complete(self) -> bool:
        """Whether every rank that may take part can be seen."""
        world = max((each.state.world_size for each in self.standings), default=0)
        seen = {each.rank for each in self.standings if each.state.process.state != "elsewhere"}
        return len(seen) >= world

    @property
    def first(self) -> Standing | None:
        """The rank whose activity was found too old, or else the one that waits longest."""
        waiting = self.waiting
        if self.suspect is not None:
            for each in waiting:
                if each.state.pid == self.suspect.pid:
                    return each
        return min(waiting, key=lambda each: (-_age_ns(each), each.rank), default=None)

    @property
    def activity(self) -> Activity | None:
        """What does not end, as the first of those says that wait in it."""
        first = self.first
        if first is None:
            return None
        kind = self.suspect.kind if self.suspect is not None else ""
        launch = first.activity
        if launch is not None and launch.kind not in LAUNCHES:
            return next((each for each in first.stuck if each.kind == kind), launch)
        return launch

    @property
    def age_ns(self) -> int:
        """For how long that has been under way; stops of the whole process do not count."""
        activity = self.activity
        if activity is None:
            return self.suspect.watched_ns if self.suspect else 0
        return min(activity.age_ns, activity.watched_ns or activity.age_ns)

    @property
    def looked_ns(self) -> int:
        """When the ranks were looked at last, in nanoseconds since the epoch."""
        return max((each.state.looked_ns for each in self.standings), default=0)

    def place(self, standing: Standing) -> Place | None:
        """Return where a rank is in the group; None if it has done nothing there."""
        return self.places.get(standing.state.pid)

    def late(self, standing: Standing) -> bool:
        """Whether a rank has not launched the step in which others wait."""
        place = self.place(standing)
        if self.step == 0:
            return False
        return place is None or (place.numbered and place.launched < self.step)

    def subject(self, ranks: Iterable[int], one: str = "is", several: str = "are") -> str:
        """Return ranks as a subject with its verb: ``rank 1 is``."""
        ordered = sorted(set(ranks))
        return f"{ranks_text(ordered)} {agree(ordered, one, several)}"


def majority(keys: Sequence[object]) -> object | None:
    """Return the key that more than half have; None if there is none."""
    if not keys:
        return None
    key, count = Counter(keys).most_common(1)[0]
    return key if 2 * count > len(keys) else None


def _age_ns(standing: Standing) -> int:
    return max((each.age_ns for each in standing.stuck), default=0)


def _group_of(standings: Sequence[Standing], suspect: Suspect | None) -> str:
    """Return the group of the launch that does not end, or else the one that was used last."""
    waiting = sorted(
        (each for each in standings if each.waits),
        key=lambda each: (
            suspect is None or each.state.pid != suspect.pid,
            -_age_ns(each),
            each.rank,
        ),
    )
    for each in waiting:
        for activity in each.stuck:
            if activity.kind in LAUNCHES and activity.group:
                return activity.group
    used: dict[str, int] = {}
    for each in standings:
        for group, last in each.state.last.items():
            used[group] = max(used.get(group, 0), last.time_ns)
    return max(used, key=lambda group: (used[group], group), default="")


def _belongs(standing: Standing, group: str) -> bool:
    """Whether a rank that has done nothing in any group is to be counted to this one."""
    return bool(group) and not standing.state.last and standing.state.world_size > 1


def _step_of(members: Sequence[Standing], places: Mapping[int, Place]) -> int:
    """Return the last step that ranks wait in.

    A rank waits in a launch, or after it for what it computes.
    """
    launched = []
    for each in members:
        place = places.get(each.state.pid)
        # A launch that sleeps waits for something, though its stack does not say for whom.
        waits = each.waits and (each.seen.wait is not Wait.HOST or each.sleeps)
        if place is not None and place.numbered and place.launched and waits:
            outputs = any(activity.kind == "output" for activity in each.stuck)
            if place.in_flight or outputs or each.seen.wait in (Wait.PEERS, Wait.DEVICE):
                launched.append(place.launched)
    if launched:
        return max(launched)
    # Without stacks and launches under way, what an engine counts is all there is.
    return 0 if places else max((engine_step(each) for each in members), default=0)
