"""What was seen of each part: of its processes, and of the black boxes that they left."""

from __future__ import annotations

from typing import Any

import msgspec

from graphguard.blackbox.choosing import Chosen
from graphguard.blackbox.merge import Timeline, merge
from graphguard.demo.plan import ODD_RANK, ROLES, STEPS
from graphguard.demo.processes import RankReport, RunReport
from graphguard.demo.story import (
    TOLERANCE,
    Adoption,
    Diverging,
    Guarded,
    Killed,
    RankEnd,
    Refusal,
    Stand,
    StepResult,
    Unguarded,
)


def boxes_of(run: RunReport, chosen: Chosen) -> Chosen:
    """Return the black boxes of a run; where they are kept, there may be some of an earlier one."""
    pids = {rank.pid for rank in run.ranks}
    boxes = tuple(box for box in chosen.boxes if box.pid in pids)
    return msgspec.structs.replace(chosen, boxes=boxes)


def unguarded(run: RunReport) -> Unguarded:
    """Return what was seen of the run without a guard."""
    return Unguarded(
        outcome=run.outcome,
        seconds=round(run.seconds, 2),
        waited_seconds=round(run.waited_seconds, 2),
        ranks=[_stand(rank) for rank in run.ranks],
        wrong_outputs=sum(
            event.get("difference", 0.0) > TOLERANCE for rank in run.ranks for event in rank.events
        ),
    )


def guarded(run: RunReport, black_boxes: Chosen) -> Guarded:
    """Return what was seen of the run with the guard."""
    results: dict[tuple[int, int], StepResult] = {}
    for rank in run.ranks:
        for event in rank.events:
            if "difference" in event:
                place = results.setdefault(
                    (event["step"], ROLES.index(event["role"])),
                    StepResult(event["batch"], event["role"], [], 0.0),
                )
                place.verdicts.append(f"{event['action']} ({event['reason']})")
                place.difference = max(place.difference, event["difference"])
    moved = results.pop((len(STEPS), 0), None)
    steps = [results[place] for place in sorted(results)]
    return Guarded(
        outcome=run.outcome,
        seconds=round(run.seconds, 2),
        steps=steps,
        equal_to_eager=bool(steps) and all(step.difference <= TOLERANCE for step in steps),
        adoption=None if moved is None else Adoption(ODD_RANK, moved),
        agreed_launches=_agreed_launches(merge(black_boxes.boxes), len(run.ranks)),
    )


def diverging(run: RunReport, black_boxes: Chosen) -> Diverging:
    """Return what was seen of the run in which a rank would launch something else."""
    diverged = _told(run, "diverges")
    refused = _told(run, "refused")
    refusal = None
    if diverged is not None and refused is not None:
        refusal = Refusal(
            rank=ODD_RANK,
            launch=refused["launch"],
            message=refused["refused"],
            seconds=round(refused["time"] - diverged["time"], 4),
        )
    timeline = merge(black_boxes.boxes)
    difference = timeline.first_difference
    sides = () if difference is None else difference.sides
    return Diverging(
        outcome=run.outcome,
        seconds=round(run.seconds, 2),
        refusal=refusal,
        sides=[side.check.role for side in sides if side.check is not None],
        launched=sorted(
            timeline.boxes[member].rank for side in sides if side.launch for member in side.members
        ),
        ends=_ends(run, diverged),
    )


def killed(run: RunReport, black_boxes: Chosen) -> Killed:
    """Return what was seen of the run in which a rank was killed."""
    return Killed(
        outcome=run.outcome,
        seconds=round(run.seconds, 2),
        rank=ODD_RANK,
        ends=_ends(run, _told(run, "killed")),
        black_boxes=black_boxes,
    )


def _stand(rank: RankReport) -> Stand:
    step, doing = "", ""
    for event in rank.events:
        if "step" in event:
            step = f"step {event['step']} ({event['batch']}), {event['role']}"
        doing = event.get("does", doing)
    return Stand(rank.rank, step, doing, rank.stack)


def _agreed_launches(timeline: Timeline, num_ranks: int) -> int:
    """Return in how many launches all ranks did the same, whatever they had wished."""
    steps = sum(c.steps for c in timeline.comparisons if len(c.members) == num_ranks)
    difference = timeline.first_difference
    # Steps are compared up to and with the first that differs.
    return steps - (difference is not None and difference.launches_differ is not False)


def _told(run: RunReport, word: str) -> dict[str, Any] | None:
    """Return what the odd rank said with this word in it."""
    events = (event for event in run.ranks[ODD_RANK].events if word in event)
    return next(events, None)


def _ends(run: RunReport, since: dict[str, Any] | None) -> list[RankEnd]:
    return [
        RankEnd(
            rank.rank,
            rank.exit_code,
            None if since is None or rank.ended is None else round(rank.ended - since["time"], 2),
        )
        for rank in run.ranks
    ]
