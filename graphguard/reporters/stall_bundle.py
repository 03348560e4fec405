"""The evidence of a stall as text for people."""

from __future__ import annotations

from collections.abc import Iterator

from graphguard.audit.logs.stall_bundle import RankSeen, StallBundle, Verdict
from graphguard.printable import printable
from graphguard.reporters import table

_FRAMES = 6


def render(bundle: StallBundle) -> str:
    """Return what a bundle says: the verdict, the ranks, their stacks, and what is missing."""
    parts = ["".join(f"{printable(line)}\n" for line in _head(bundle))]
    if bundle.ranks:
        rows = [_row(bundle, rank) for rank in bundle.ranks]
        columns = ("rank", "process", "state", "in flight", "main thread in")
        parts.append(table.render("Ranks", columns, rows))
    parts.append("".join(f"{printable(line)}\n" for line in _body(bundle)))
    return "\n".join(part for part in parts if part)


def _head(bundle: StallBundle) -> Iterator[str]:
    index = bundle.index
    made = f", made {index.made} in {index.seconds:g} s" if index.made else ""
    yield f"{bundle.path}: job {index.job or '?'} on {index.host or '?'}{made}"
    if bundle.others:
        yield f"({bundle.others} older bundle(s) beside it are not read)"
    if bundle.verdict is None:
        yield "no verdict is there"
        return
    yield from _verdict(bundle.verdict)


def _verdict(verdict: Verdict) -> Iterator[str]:
    yield f"{verdict.stall_class}: {verdict.sentence or 'it does not say more'}"
    if verdict.where:
        yield f"where: {verdict.where}"
    for seen in verdict.evidence:
        yield f"  seen: {seen.what}{f' [{seen.source}]' if seen.source else ''}"
    for unknown in verdict.not_known:
        yield f"  not known: {unknown}"


def _row(bundle: StallBundle, rank: RankSeen) -> tuple[str, ...]:
    frame = bundle.innermost(rank.pid)
    activities = rank.pulse.activities if rank.pulse is not None else ()
    flying = "; ".join(
        " ".join(filter(None, (each.kind, each.name, each.batch, f"for {each.age_ns / 1e9:.1f} s")))
        for each in activities[:3]
    )
    where = str(frame) if frame is not None else "-"
    return (str(rank.rank), str(rank.pid), rank.process.state, flying or "-", where)


def _body(bundle: StallBundle) -> Iterator[str]:
    for stacks in bundle.stacks:
        main = stacks.main
        if main is None:
            continue
        yield f"main thread of process {stacks.pid}, by {stacks.engine}"
        yield from (f"  {frame}" for frame in main.frames[:_FRAMES])
        if len(main.frames) > _FRAMES:
            yield f"  and {len(main.frames) - _FRAMES} more: {bundle.path}/stacks/{stacks.pid}.txt"
    for rank in bundle.ranks:
        if rank.note:
            yield f"rank {rank.rank} noted: {rank.note}"
    for entry in bundle.afterwards:
        told = f": {entry.sentence or entry.how}" if entry.sentence or entry.how else ""
        yield f"afterwards: {entry.time} {entry.what}{told}"
    for what, why in sorted(bundle.index.missing.items()):
        yield f"not complete: {what}: {why}"
    yield from (f"not readable: {problem}" for problem in bundle.problems)
