"""The records of a black box in words."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import datetime, timedelta, timezone

from graphguard.audit.findings import ranks_text
from graphguard.blackbox.events import DivergenceKind, Event, Flag
from graphguard.blackbox.merge import Standing
from graphguard.blackbox.reading import Box
from graphguard.blackbox.records import Record
from graphguard.verdict import Action

_EPOCH = datetime(1970, 1, 1, tzinfo=timezone.utc)

_EVENTS: dict[int, str] = {
    Event.CAPTURE: "captured {subject}",
    Event.REPLAY_BEGIN: "began replay of {subject}",
    Event.REPLAY_END: "ended replay of {subject}",
    Event.EAGER_BEGIN: "began the eager run of {subject}",
    Event.EAGER_END: "ended the eager run of {subject}",
    Event.VOTE: "voted: {verdict} of {subject}",
    Event.NOTE: "noted: {note}",
    Event.SEALED: "sealed the graphs of {subject}",
    Event.CLOSED: "closed its black box",
}

_ACTIONS: dict[int, str] = {
    Action.REPLAY: "decided to replay {subject} ({reason})",
    Action.PAD: "decided to replay {subject} with padding ({reason})",
    Action.RECAPTURE: "decided to capture {subject} again ({reason})",
    Action.EAGER: "decided to run {subject} eagerly ({reason})",
    Action.ABORT: "refused {subject} ({reason})",
}

_DIVERGENCES: dict[int, str] = {
    DivergenceKind.DIFFERS: "saw that {peer} does something else",
    DivergenceKind.ADOPTED: "gave up its own choice for that of {peer}",
    DivergenceKind.REFUSED: "refused the step because of {peer}",
    DivergenceKind.PEER_REFUSED: "learned that {peer} refused the step",
    DivergenceKind.PEER_GONE: "found that {peer} is gone",
    DivergenceKind.LAPPED: "could not compare itself with {peer}, which is too far ahead or behind",
    DivergenceKind.VOTE_TIMED_OUT: "waited in vain for {peer} to vote",
    DivergenceKind.NODES_DIFFER: "learned that {peer}, on another node, launched something else",
    DivergenceKind.CAPTURES_DIFFER: "found that {peer} captured something else",
    DivergenceKind.DAMAGED: "found the ledger damaged",
    DivergenceKind.PADDING: "found padded slots that break a kernel",
}


def told(record: Record) -> str:
    """Return what a process did, as a half-sentence in the past tense."""
    if record.event == Event.CHECK:
        words = _ACTIONS.get(record.action, "checked {subject}")
    elif record.event == Event.DIVERGENCE:
        words = _DIVERGENCES.get(record.detail, "recorded {kind} with {peer}")
    else:
        words = _EVENTS.get(record.event, "recorded {kind}")
    return words.format(
        subject=subject(record),
        note=record.note,
        verdict=record.verdict or "for a launch",
        reason=record.reason_name or "no reason given",
        peer="another rank" if record.peer_rank is None else f"rank {record.peer_rank}",
        kind=record.divergence or record.event_name,
    ) + _how(record)


def subject(record: Record) -> str:
    """Return what a record is about: ``target 16x2``."""
    return " ".join(filter(None, (record.role, record.batch))) or "a step"


def did_last(standing: Standing) -> str:
    """Return what a rank did last, and whether it is still at it."""
    if standing.last is None:
        return "nothing yet"
    done = standing.begun or standing.last_of_step
    if done is None:
        return told(standing.last)
    text = f"{told(done)} and has not ended" if standing.begun else told(done)
    return text if standing.last is done else f"{text}; then {told(standing.last)}"


def ranks(members: Sequence[int], boxes: Sequence[Box]) -> str:
    """Return some of the boxes by their ranks; with the process where two claim to be of one."""
    numbers = [boxes[member].rank for member in members]
    everyone = [box.rank for box in boxes]
    if len(set(everyone)) == len(everyone):
        return ranks_text(sorted(numbers))
    return ", ".join(
        f"rank {boxes[member].rank} (pid {boxes[member].pid} on {boxes[member].host})"
        for member in members
    )


def process(box: Box) -> str:
    """Return whether the process of a box still runs, as far as it can be known."""
    if box.closed:
        return "closed"
    return {True: "running", False: "gone", None: "not known"}[box.running]


def moment(time_ns: int) -> str:
    """Return a time as the time of the day, in UTC."""
    return f"{_time(time_ns):%H:%M:%S.%f}" if time_ns else "at no known time"


def day_and_moment(time_ns: int) -> str:
    """Return a time with its day, in UTC."""
    return f"{_time(time_ns):%Y-%m-%d %H:%M:%S.%f} UTC" if time_ns else "at no known time"


def duration(nanoseconds: int) -> str:
    """Return a duration with about three digits: ``12.3 s``."""
    for size, unit in ((3_600_000_000_000, "h"), (60_000_000_000, "min"), (1_000_000_000, "s")):
        if nanoseconds >= size * (1 if unit == "s" else 2):
            return f"{nanoseconds / size:,.1f} {unit}"
    if nanoseconds >= 1_000_000:
        return f"{nanoseconds / 1_000_000:.1f} ms"
    return f"{nanoseconds / 1_000:.1f} µs"


def counted(number: int, noun: str) -> str:
    """Return a number with its noun: ``1 step``, ``2 steps``."""
    return f"{number:,} {noun}{'' if number == 1 else 's'}"


def _how(record: Record) -> str:
    how = []
    if record.flags & Flag.ADOPTED and record.event != Event.DIVERGENCE:
        how.append("as another rank decided")
    if record.flags & Flag.VOTED and record.event != Event.VOTE:
        how.append("as the ranks voted")
    return f", {', '.join(how)}" if how else ""


def _time(time_ns: int) -> datetime:
    return _EPOCH + timedelta(microseconds=time_ns // 1_000)
