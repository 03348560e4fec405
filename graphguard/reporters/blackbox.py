"""Black boxes as text for people: where each rank stands, where they part, the last steps."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence

from graphguard.blackbox import words
from graphguard.blackbox.choosing import Chosen
from graphguard.blackbox.comparing import Side
from graphguard.blackbox.events import Event
from graphguard.blackbox.history import BEGIN_OF, BEGINS, History
from graphguard.blackbox.merge import Standing, Timeline
from graphguard.blackbox.reading import Box
from graphguard.blackbox.records import Record
from graphguard.printable import printable
from graphguard.reporters import table

MAX_DIVERGENCES = 10
COLUMNS = ("rank", "group", "step", "behind", "did last", "before newest", "damaged", "process")

_LAUNCHES = {
    True: "They launched different things.",
    False: "All of them launched the same.",
    None: "Not all of them launched anything.",
}
_DONE = {Event.REPLAY_BEGIN: "replayed", Event.EAGER_BEGIN: "ran eagerly"}


def render(timeline: Timeline, chosen: Chosen, last: int) -> str:
    """Return what there is to say about some black boxes, with the last steps of each group."""
    return standings(timeline) + lines(
        [
            *_difference(timeline),
            *_divergences(timeline),
            *_trouble(timeline, chosen),
            "",
            *_last_steps(timeline, last),
        ]
    )


def standings(timeline: Timeline) -> str:
    """Return a table of where each rank stands in each of its groups."""
    records = sum(len(box.records) for box in timeline.boxes)
    several = len({box.host for box in timeline.boxes}) > 1
    rows = [
        _row(standing, timeline, several)
        for standing in sorted(
            timeline.standings, key=lambda each: (each.group, timeline.boxes[each.member].rank)
        )
    ]
    title = (
        f"{words.counted(len(timeline.boxes), 'rank')}, {words.counted(records, 'record')}, the "
        f"newest of {words.day_and_moment(timeline.newest_ns)}"
    )
    return table.render(title, COLUMNS, rows)


def event(boxes: Sequence[Box], member: int, record: Record) -> str:
    """Return one record as a line."""
    rank = words.ranks((member,), boxes)
    place = " ".join(filter(None, (record.group, f"step {record.step}" if record.step else "")))
    who = ", ".join(filter(None, (rank, place)))
    return lines([f"{words.moment(record.time_ns)}  {who}: {words.told(record)}"])


def opened(boxes: Sequence[Box], member: int) -> str:
    """Return a line about a box that was opened while others were followed."""
    box = boxes[member]
    rank = words.ranks((member,), boxes)
    return lines([f"{words.moment(box.started_ns)}  {rank}: pid {box.pid} opened {box.path}"])


def lines(texts: Sequence[str]) -> str:
    """Return lines with nothing in them that a terminal would act on."""
    return "".join(f"{printable(text)}\n" for text in texts)


def _row(standing: Standing, timeline: Timeline, several_hosts: bool) -> tuple[str, ...]:
    box = timeline.boxes[standing.member]
    ago = timeline.newest_ns - standing.last.time_ns if standing.last else None
    return (
        str(box.rank),
        standing.group or "-",
        str(standing.step) if standing.step else "-",
        words.counted(standing.behind, "step") if standing.behind else "",
        words.did_last(standing),
        "" if ago is None else words.duration(ago) if ago else "the newest",
        str(box.damaged) if box.damaged else "",
        f"{box.pid}{f' on {box.host}' if several_hosts else ''}, {words.process(box)}",
    )


def _difference(timeline: Timeline) -> Iterator[str]:
    difference = timeline.first_difference
    if difference is None:
        yield from _no_difference(timeline)
        return
    yield (
        f"first difference: step {difference.step} of group {difference.group}, "
        f"at {words.moment(difference.time_ns)}"
    )
    for side in difference.sides:
        yield f"  {words.ranks(side.members, timeline.boxes)}: {_side(side)}"
    yield f"  {_LAUNCHES[difference.launches_differ]}"


def _side(side: Side) -> str:
    if side.check is None:
        decided = "went on without this step"
    else:
        decided = f"{words.told(side.check)}, digest {side.check.digest:016x}"
    if side.launch is None:
        return f"{decided}; launched nothing"
    same = side.check is not None and side.launch.digest == side.check.digest
    digest = "" if same else f", digest {side.launch.digest:016x}"
    return f"{decided}; {words.told(side.launch)}{digest}"


def _no_difference(timeline: Timeline) -> Iterator[str]:
    compared = [comparison for comparison in timeline.comparisons if comparison.steps]
    for comparison in compared:
        yield (
            f"no difference: {words.ranks(comparison.members, timeline.boxes)} did the same in "
            f"{words.counted(comparison.steps, 'step')} of group {comparison.group}"
        )
    if not compared:
        yield "nothing was compared: no step of a group is in the boxes of two ranks"


def _divergences(timeline: Timeline) -> Iterator[str]:
    seen = timeline.divergences
    if not seen:
        return
    yield f"the ranks recorded {words.counted(len(seen), 'divergence')} themselves"
    for member, record in seen[:MAX_DIVERGENCES]:
        yield "  " + event(timeline.boxes, member, record).rstrip("\n")
    if rest := seen[MAX_DIVERGENCES:]:
        yield f"  and {len(rest):,} more (--json lists all)"


def _trouble(timeline: Timeline, chosen: Chosen) -> Iterator[str]:
    for member, box in enumerate(timeline.boxes):
        if box.damaged:
            rank = words.ranks((member,), timeline.boxes)
            yield f"{rank}: {words.counted(box.damaged, 'damaged record')} skipped in {box.path}"
    for file in chosen.unreadable:
        yield f"not readable: {file.why}"
    for file in chosen.left_out:
        yield f"left out: {file.path} ({file.why})"


def _last_steps(timeline: Timeline, last: int) -> Iterator[str]:
    for group, histories in timeline.histories.items():
        first = timeline.first_step(group, last)
        steps = {step for history in histories.values() for step in history.steps if step >= first}
        if steps:
            named = f"group {group}" if group else "what belongs to no group"
            yield f"last {words.counted(len(steps), 'step')} of {named}"
        for step in sorted(steps):
            yield from _step(timeline, histories, step)
    events = [(member, record) for member, record in timeline.records(last) if not record.step]
    if events:
        yield "last records that belong to no step"
    for member, record in events[len(events) - last if len(events) > last else 0 :]:
        yield "  " + event(timeline.boxes, member, record).rstrip("\n")


def _step(timeline: Timeline, histories: Mapping[int, History], step: int) -> Iterator[str]:
    """Tell what was done in a step; the ranks that did the same in one line."""
    did: dict[tuple[str, tuple[int, ...]], list[int]] = {}
    for member, history in histories.items():
        records = history.steps.get(step, [])
        text = _did(records) if records else _absent(history, step)
        digests = tuple(dict.fromkeys(record.digest for record in records))
        did.setdefault((text, digests), []).append(member)
    times = (r.time_ns for history in histories.values() for r in history.steps.get(step, ()))
    ambiguous = len({text for text, _ in did}) < len(did)
    start = f"  step {step}  {words.moment(min(times))}  "
    for (text, digests), members in did.items():
        digest = f", digest {', '.join(f'{each:016x}' for each in digests)}" if ambiguous else ""
        yield f"{start}{words.ranks(members, timeline.boxes)}: {text}{digest}"
        start = " " * len(start)


def _did(records: Sequence[Record]) -> str:
    """Tell what one rank did in one step."""
    parts: list[str] = []
    checked = ""
    ended = {(BEGIN_OF[r.event], r.role) for r in records if r.event in BEGIN_OF}
    begun = {(r.event, r.role) for r in records if r.event in BEGINS}
    for record in records:
        if (BEGIN_OF.get(record.event), record.role) in begun:
            continue
        if record.event not in BEGINS:
            parts.append(words.told(record))
            checked = words.subject(record) if record.event == Event.CHECK else checked
        elif (record.event, record.role) in ended:
            subject = words.subject(record)
            done = _DONE[Event(record.event)]
            parts.append(done if subject == checked else f"{done} {subject}")
        else:
            parts.append(f"{words.told(record)} and has not ended")
    return "; ".join(parts)


def _absent(history: History, step: int) -> str:
    if step > history.last_step:
        return "not there yet"
    return "no longer in its box" if step < min(history.steps, default=0) else "nothing"
