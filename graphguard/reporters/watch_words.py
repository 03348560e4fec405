"""What each rank is doing, in words."""

from __future__ import annotations

from graphguard.audit.findings import ranks_text
from graphguard.blackbox.pulse import Activity
from graphguard.blackbox.words import counted, duration
from graphguard.watch.looking.bundles import Bundle
from graphguard.watch.looking.ranks import RankState
from graphguard.watch.looking.view import (
    BEAT_LOST_NS,
    SLOW_NS,
    Doing,
    View,
    doing,
    limit_ns,
    main_activity,
    main_group,
)


def activity(activity: Activity) -> str:
    """Return what is under way: ``replay of target 16x2``, ``step execute_model``."""
    what = " ".join(filter(None, (activity.name, activity.batch)))
    if activity.kind == "eager":
        return f"eager run of {what}".removesuffix(" of ")
    if activity.kind in ("replay", "capture"):
        return f"{activity.kind} of {what}".removesuffix(" of ")
    return " ".join(filter(None, (activity.kind, what)))


def what(state: RankState) -> str:
    """Return what a rank is at, or what it did last."""
    under_way = main_activity(state)
    if under_way is not None:
        return activity(under_way)
    found = main_group(state)
    if found is None:
        return "nothing recorded in a step"
    # Where there is a pulse, it is newer than the records.
    in_flight = found[1].in_flight and (state.pulse is None or state.ended)
    return found[1].text + (" and has not ended" if in_flight else "")


def age_ns(state: RankState) -> int | None:
    """Return how long a rank is at it, or how long ago it did what it did last."""
    under_way = main_activity(state)
    if under_way is not None:
        return under_way.age_ns
    found = main_group(state)
    if found is None or not found[1].time_ns:
        return None
    return max(0, state.looked_ns - found[1].time_ns)


def step(state: RankState) -> int:
    """Return the step that a rank is in, or was in last; 0 if there is none."""
    under_way = main_activity(state)
    found = main_group(state)
    return (under_way.step if under_way else 0) or (found[1].step if found else 0)


def group(state: RankState) -> str:
    """Return the group that a rank is in, or was in last."""
    under_way = main_activity(state)
    found = main_group(state)
    return (under_way.group if under_way else "") or (found[0] if found else "")


def beat(state: RankState) -> str:
    """Return how the watchdog of a process is."""
    if state.pulse is None or state.pulse.beat_age_ns is None:
        return "none"
    if state.ended:
        return ""
    age = state.pulse.beat_age_ns
    return f"{duration(age)} ago" if age >= BEAT_LOST_NS else "ok"


def verdicts(state: RankState) -> str:
    """Return how often each action was decided: ``812 replay, 77 pad``."""
    shown = [f"{number:,} {name}" for name, number in _by_number(state)]
    if state.divergences:
        shown.append(counted(state.divergences, "divergence"))
    text = ", ".join(shown)
    return f"≥ {text}" if text and (state.counted_from > 1 or state.missed) else text


def _by_number(state: RankState) -> list[tuple[str, int]]:
    return sorted(state.verdicts.items(), key=lambda item: (-item[1], item[0]))


def stalls(state: RankState) -> str:
    """Return how many stalls the watchdog of a process has told."""
    return str(state.pulse.stalls) if state.pulse is not None and state.pulse.stalls else ""


def summary(view: View) -> str:
    """Return the ranks by what they do: ``1 stopped, 3 stalled``."""
    numbers: dict[Doing, int] = {}
    for state in view.ranks:
        word = doing(state)
        numbers[word] = numbers.get(word, 0) + 1
    order = list(Doing)
    return ", ".join(f"{numbers[word]} {word}" for word in order if word in numbers)


def slow(state: RankState) -> str:
    """Return what is slow in a rank and why, or nothing."""
    under_way = main_activity(state)
    if under_way is None or under_way.age_ns < SLOW_NS or state.pulse is None:
        return ""
    text = f"rank {state.rank}: {activity(under_way)} for {duration(under_way.age_ns)}"
    text += reached(state, under_way)
    if state.pulse.extended_ns:
        why = state.pulse.extended_why or "no reason given"
        return f"{text}: {why}, {duration(state.pulse.extended_ns)} left"
    limit = limit_ns(state.pulse, under_way)
    return f"{text}, {'longer than' if under_way.age_ns >= limit else 'of'} {duration(limit)}"


def reached(state: RankState, under_way: Activity) -> str:
    """Return how far a replay got, where its graph has breadcrumbs."""
    for crumb in state.crumbs:
        if under_way.kind == "replay" and crumb.digest == under_way.digest and crumb.next_call:
            return f", in call {crumb.reached + 1} of {crumb.positions} ({crumb.next_call})"
    return ""


def bundle(bundle: Bundle, view: View) -> str:
    """Return what is known of a stall, in one line."""
    if bundle.over:
        how = "recovered" if bundle.over == "recovered" else "processes gone"
        after = "" if bundle.over_seconds is None else f" after {bundle.over_seconds:,.1f} s"
        state = f"{how}{after}"
    else:
        state = "going on" if bundle in view.open_stalls else "ended"
    verdict = bundle.verdict
    if verdict is None:
        return f"{state}: {bundle.problem}"
    told = verdict.sentence or " ".join(
        filter(None, (ranks_text(sorted(verdict.ranks)) if verdict.ranks else "", verdict.graph))
    )
    return f"{state}: {verdict.stall_class or 'no class'}: {told}".removesuffix(": ")
