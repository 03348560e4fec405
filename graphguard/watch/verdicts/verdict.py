"""What a stall is, from what was seen of all ranks of a node. A pure function.

Ranks that wait are never blamed: they are where they should be. A rank is blamed for what was seen
of it, and where nothing tells the ranks apart none is blamed.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from datetime import datetime, timedelta, timezone

from graphguard.watch.looking.ranks import RankState
from graphguard.watch.stack_traces.stack_model import ProcessStacks
from graphguard.watch.verdicts.case import Case
from graphguard.watch.verdicts.findings import Finding, find
from graphguard.watch.verdicts.slowness import SlowSigns, slow_signs
from graphguard.watch.verdicts.stall import Evidence, StallClass, StallVerdict, Suspect
from graphguard.watch.verdicts.stall_words import (
    collective_of,
    evidence_of,
    launch_words,
    not_known_of,
)
from graphguard.watch.verdicts.standing import Standing, standings

__all__ = ["Evidence", "StallClass", "StallVerdict", "Suspect", "verdict"]

_EPOCH = datetime(1970, 1, 1, tzinfo=timezone.utc)
_LAST_MOMENT_NS = 250_000_000_000 * 1_000_000_000
"""In the year 9892: later moments have no date."""

_MAY_BE_SLOW = frozenset({StallClass.HOST_STUCK, StallClass.DEVICE, StallClass.UNKNOWN})


def verdict(
    before: Sequence[RankState],
    after: Sequence[RankState],
    stacks: Mapping[int, ProcessStacks] | None = None,
    *,
    suspect: Suspect | None = None,
    members: Mapping[str, frozenset[int]] | None = None,
    first_runs: Mapping[int, str] | None = None,
    may_be_slow: bool = True,
    on_cuda: frozenset[int] = frozenset(),
) -> StallVerdict:
    """Say what a stall is.

    Args:
        before: All ranks of the node that can be seen.
        after: The same, some hundred milliseconds later.
        stacks: Of the processes, by their ids; as many as could be had.
        suspect: The activity that a watchdog found too old; the oldest one if None.
        members: The processes of each group of ranks on this node, as its ledger names them.
        first_runs: Which processes run something for the first time, and what.
        may_be_slow: Whether what ends by itself may be told as slow. Not for ever.
        on_cuda: Processes that use CUDA. Without native frames, a wait for the device in them
            looks like code of the program.
    """
    stacks = stacks or {}
    case = Case.of(standings(before, after, stacks, on_cuda), suspect, members or {})
    finding = find(case)
    if may_be_slow and finding.stall_class in _MAY_BE_SLOW:
        finding = _slow_or(finding, case, before, stacks, first_runs or {})
    return _told(finding, case)


def _slow_or(
    finding: Finding,
    case: Case,
    before: Sequence[RankState],
    stacks: Mapping[int, ProcessStacks],
    first_runs: Mapping[int, str],
) -> Finding:
    """Return the finding, or that the ranks which others wait for are slow."""
    earlier = {(state.rank, state.pid): state for state in before}
    looked_at = [
        each
        for each in case.alive
        if each.rank in finding.ranks or (not finding.ranks and each.may_work)
    ]
    signs: dict[int, SlowSigns] = {}
    for each in looked_at:
        state = each.state
        signs[each.rank] = slow_signs(
            earlier.get((state.rank, state.pid)),
            state,
            stacks.get(state.pid),
            each.thread,
            first_runs.get(state.pid, ""),
        )
    slow = {rank for rank, told in signs.items() if told.certain or told.supporting}
    stuck = set(finding.ranks) - slow
    if not slow or stuck:
        # Those that are seen to be slow are not blamed for what another one does.
        return finding.without(slow) if stuck else finding
    ranks = tuple(sorted(slow))
    evidence = tuple(
        each for rank in ranks for each in (*signs[rank].certain, *signs[rank].supporting)
    )
    return Finding(StallClass.SLOW, ranks, slow_sentence(case, ranks, evidence), evidence)


def slow_sentence(case: Case, ranks: Sequence[int], evidence: Sequence[Evidence]) -> str:
    """Return in words that ranks are slow."""
    seen = "; ".join(dict.fromkeys(each.what for each in evidence))
    return f"{case.subject(ranks)} in {launch_words(case)}: {seen}"


def _told(finding: Finding, case: Case) -> StallVerdict:
    seconds = case.age_ns / 1e9
    activity = case.activity
    return StallVerdict(
        stall_class=finding.stall_class,
        ranks=finding.ranks,
        waiting=tuple(each.rank for each in case.waiting if each.rank not in finding.ranks),
        group=case.group,
        step=case.step,
        role=activity.name if activity else "",
        graph=launch_words(case),
        batch=activity.batch if activity else "",
        seconds=round(seconds, 3),
        since=_iso(case.looked_ns - case.age_ns),
        collective=collective_of(case),
        where=_where(finding, case),
        sentence=finding.sentence,
        evidence=(*finding.evidence, *evidence_of(case, finding)),
        not_known=not_known_of(case, finding),
    )


def _where(finding: Finding, case: Case) -> str:
    blamed: list[Standing] = [each for each in case.alive if each.rank in finding.ranks]
    return next((each.seen.where for each in blamed if each.seen.where), "")


def _iso(time_ns: int) -> str:
    bounded = min(max(time_ns, 0), _LAST_MOMENT_NS)
    return (_EPOCH + timedelta(microseconds=bounded // 1000)).isoformat(timespec="milliseconds")
