"""What several ranks said of the collective or batch that each of them waited in."""

from __future__ import annotations

import re
from typing import NamedTuple

from graphguard.audit.logs.collecting import Collected, quotes
from graphguard.audit.logs.events import Event
from graphguard.audit.logs.model import Evidence

_WORK = re.compile(r"(SeqNum|OpType|NumelIn|NumelOut)=(\w+)")


class RanksRead(NamedTuple):
    """What the ranks said, and where."""

    why: str
    evidence: tuple[Evidence, ...]


def different(told: Collected) -> RanksRead | None:
    """Return in what ranks waited that differs between them, or None."""
    works = _works(told)
    if len(set(works.values())) > 1:
        parts = "; ".join(f"{rank}: {_told(work)}" for rank, work in sorted(works.items())[:4])
        return RanksRead(f"the ranks timed out in different collectives: {parts}", _evidence(told))
    batches = _batches(told)
    if len({event.values["num_reqs"] for event in batches.values()}) > 1:
        parts = "; ".join(
            f"{rank}: {event.values['num_reqs']} requests"
            for rank, event in sorted(batches.items())[:4]
        )
        why = f"ranks of one tensor-parallel group were at batches of different sizes: {parts}"
        return RanksRead(why, quotes(list(batches.values())))
    return None


def same(told: Collected) -> RanksRead | None:
    """Return that all ranks waited in the same collective, where every one of them said so."""
    works = _works(told)
    world = told.configuration.integer("tensor_parallel_size")
    if len(works) < 2 or len(set(works.values())) > 1 or world is None or len(works) < world:
        return None
    work = next(iter(works.values()))
    why = f"all {len(works)} ranks timed out in the same collective: {_told(work)}"
    return RanksRead(why, _evidence(told))


def _works(told: Collected) -> dict[str, tuple[tuple[str, str], ...]]:
    works: dict[str, tuple[tuple[str, str], ...]] = {}
    for event in told.of("nccl-timeout"):
        work = tuple(_WORK.findall(event.values.get("work", "")))
        if event.line.process and work:
            works.setdefault(event.line.process, work)
    return works


def _evidence(told: Collected) -> tuple[Evidence, ...]:
    return quotes(told.of("nccl-timeout"))


def _told(work: tuple[tuple[str, str], ...]) -> str:
    return " ".join(f"{name}={value}" for name, value in work)


def _batches(told: Collected) -> dict[str, Event]:
    # Ranks of different data-parallel groups have batches of their own.
    return {
        event.line.process: event
        for event in told.of("sglang-batch")
        if re.fullmatch(r"TP\d+(?: EP\d+)*", event.line.process)
    }
