"""A stall in words, and what was seen and not seen of it."""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING, Any

from graphguard.audit.findings import ranks_text
from graphguard.watch.stack_traces.wait_frames import Wait
from graphguard.watch.verdicts.stall import Collective, Evidence, StallClass

if TYPE_CHECKING:
    from graphguard.watch.verdicts.case import Case
    from graphguard.watch.verdicts.findings import Finding
    from graphguard.watch.verdicts.standing import Standing

MAX_OPERATION = 200

_WAITS = {
    Wait.PEERS: "waits for other ranks",
    Wait.DEVICE: "waits for its device",
    Wait.WORK: "waits for work",
    Wait.HOST: "is in code of the program",
    Wait.LIBRARY: "is in a library",
}


def in_step(case: Case) -> str:
    """Return the step that does not end: ``step 41 of tp``."""
    step = f"step {case.step}" if case.step else "the step"
    return f"{step} of {case.group}" if case.group else step


def launch_words(case: Case) -> str:
    """Return what does not end: ``replay of target 16x2``."""
    activity = case.activity
    if activity is None:
        return in_step(case)
    batch = f" {activity.batch}" if activity.batch else ""
    if activity.kind in ("replay", "eager"):
        how = "replay" if activity.kind == "replay" else "the eager run"
        return f"{how} of {activity.name or 'a graph'}{batch}"
    return f"{activity.name or activity.kind}{batch} ({activity.kind})"


def doing(standing: Standing, case: Case) -> str:
    """Return in one clause what a rank is at."""
    rank = f"rank {standing.rank}"
    if standing.gone:
        return f"{rank} has ended"
    if standing.stopped:
        return f"{rank} is stopped"
    place = case.place(standing)
    parts = []
    if place is not None and place.what:
        verb = "is in" if place.in_flight else "has finished"
        parts.append(f"{verb} {place.what}{f' (step {place.launched})' if place.numbered else ''}")
    elif standing.activity is not None:
        parts.append(f"is in {standing.activity.name or standing.activity.kind}")
    elif place is None:
        parts.append("has launched nothing that is known")
    seen = standing.seen
    if seen.where:
        parts.append(f"{_WAITS.get(seen.wait, 'is')} ({seen.where})")
    return f"{rank} {', and '.join(parts)}" if parts else f"{rank} is in nothing"


def evidence_of(case: Case, finding: Finding) -> tuple[Evidence, ...]:
    """Return what was seen of the ranks that matter."""
    return tuple(
        each
        for standing in case.standings
        for each in _seen_of(standing, blamed=standing.rank in finding.ranks)
    )


def _seen_of(standing: Standing, *, blamed: bool) -> Iterator[Evidence]:
    state, rank = standing.state, standing.rank
    for activity in standing.stuck:
        step = f", step {activity.step}" if activity.step else ""
        what = f"{activity.kind} {activity.name} {activity.batch}".strip()
        yield Evidence(
            f"rank {rank}: {what}{step}, under way for {activity.age_ns / 1e9:.1f} s",
            f"pulse in {state.ring}",
        )
    if not standing.stuck or blamed:
        for group, last in sorted(state.last.items()):
            step = f" step {last.step}" if last.step else ""
            yield Evidence(f"rank {rank}{step} of {group or 'no group'}: {last.text}", state.ring)
    for crumb in state.crumbs:
        if (read := _crumb(crumb)) is not None:
            reached, positions, operation = read
            what = f"rank {rank} has passed {reached} of {positions} calls, and is in {operation}"
            yield Evidence(what, f"breadcrumbs beside {state.ring}")
    if standing.seen.where:
        why = f" ({standing.seen.reason})" if standing.seen.reason else ""
        told = _WAITS.get(standing.seen.wait, "is")
        tid = standing.stack.tid if standing.stack is not None else 0
        yield Evidence(
            f"rank {rank} {told}: {standing.seen.where}{why}",
            f"stack of thread {tid or standing.thread} of process {state.pid}",
        )


def not_known_of(case: Case, finding: Finding) -> tuple[str, ...]:
    """Return what could not be seen, and why."""
    return tuple(_not_known(case, finding))


def _not_known(case: Case, finding: Finding) -> Iterator[str]:
    world = max((each.state.world_size for each in case.standings), default=0)
    here = {each.rank for each in case.standings if each.state.process.state != "elsewhere"}
    missing = [rank for rank in range(min(world, 65_536)) if rank not in here]
    if missing:
        yield f"what {ranks_text(missing)} of {world} do: no black box of theirs is on this node"
    for each in case.standings:
        if each.state.pulse is None and not each.gone:
            yield f"what rank {each.rank} is doing: its black box has no pulse"
        if each.stacks_problem and not each.gone and finding.stall_class is not StallClass.STOPPED:
            yield f"where rank {each.rank} is: its stack was not read ({each.stacks_problem})"
        elif each.seen.wait is Wait.LIBRARY and each.waits and not finding.ranks:
            yield f"what rank {each.rank} waits for in {each.seen.where}: no native frames say it"
    in_graphs = (StallClass.DEVICE, StallClass.RANKS_DIVERGED, StallClass.UNKNOWN)
    if finding.stall_class in in_graphs and collective_of(case) is None and case.waiting:
        yield f"which collective it waits in: {_why_no_collective(case)}"
    if finding.stall_class is StallClass.RANKS_DIVERGED and not finding.ranks:
        yield "which rank is wrong: as many did the one as the other"
    if finding.stall_class is StallClass.HOST_STUCK and finding.ranks:
        yield "whether it ends by itself: a long call looks like this, too"


def _why_no_collective(case: Case) -> str:
    if not any(each.state.leaves_crumbs for each in case.waiting):
        return "there are no breadcrumbs (GRAPHGUARD_BREADCRUMBS=1)"
    if any(each.state.crumbs for each in case.waiting):
        return "by the breadcrumbs the replays under way have passed all their calls"
    return "by the breadcrumbs no replay is under way, so it is called outside of graphs"


def collective_of(case: Case) -> Collective | None:
    """Return what the replay waits in: the earliest position that any waiting rank is at."""
    found = [
        read
        for standing in case.waiting
        for crumb in standing.state.crumbs
        if (read := _crumb(crumb)) is not None
    ]
    if not found:
        return None
    reached, positions, operation = min(found)
    return Collective(reached + 1, positions, operation)


def _crumb(crumb: Any) -> tuple[int, int, str] | None:  # noqa: ANN401 - of whatever version
    launched, finished = getattr(crumb, "launched", 0), getattr(crumb, "finished", 0)
    reached, positions = getattr(crumb, "reached", 0), getattr(crumb, "positions", 0)
    if launched <= finished or not 0 <= reached < positions:
        return None
    return reached, positions, str(getattr(crumb, "next_call", ""))[:MAX_OPERATION]
