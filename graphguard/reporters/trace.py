"""Black boxes as a Chrome trace, which Perfetto and chrome://tracing open.

Ranks are processes there, groups are threads. The format is Google's "Trace Event Format": times
and durations are microseconds, ``M`` names a track, ``X`` lasts, ``i`` is a moment.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any

import msgspec

from graphguard.blackbox import words
from graphguard.blackbox.events import Event
from graphguard.blackbox.history import BEGIN_OF, BEGINS
from graphguard.blackbox.reading import Box
from graphguard.blackbox.records import Record

_GLOBAL = "g"
_PROCESS = "p"
_THREAD = "t"

_SCOPES: dict[int, str] = {
    Event.CAPTURE: _THREAD,
    Event.DIVERGENCE: _GLOBAL,
    Event.VOTE: _PROCESS,
    Event.NOTE: _PROCESS,
    Event.SEALED: _PROCESS,
    Event.CLOSED: _PROCESS,
}
"""How far the mark of an event reaches across the tracks."""

_NO_GROUP = "no group"
_LaunchKey = tuple[str, str, int, int]


def render(boxes: Sequence[Box]) -> str:
    """Return the trace of some boxes as JSON."""
    times = [record.time_ns for box in boxes for record in box.records]
    # The whole number of nanoseconds since the epoch would not fit into a JSON number's 53 bits.
    start = min(times, default=0)
    end = max(times, default=0)
    groups = sorted({record.group for box in boxes for record in box.records})
    # Perfetto takes process 0 and thread 0 for the idle task of the kernel.
    threads = {group: place for place, group in enumerate(groups, start=1)}
    events: list[dict[str, Any]] = []
    for place, box in enumerate(boxes, start=1):
        events.extend(_names(place, box, threads))
        events.extend(_Track(place, box, threads, start, end).events())
    document = {
        "displayTimeUnit": "ns",
        "otherData": {"begins_ns_since_epoch": str(start), "written_by": "graphguard"},
        "traceEvents": events,
    }
    return msgspec.json.encode(document).decode() + "\n"


def _names(place: int, box: Box, threads: dict[str, int]) -> Iterator[dict[str, Any]]:
    process = f"rank {box.rank} (pid {box.pid} on {box.host}, {words.process(box)})"
    used = {record.group for record in box.records}
    yield _metadata("process_name", place, 0, name=process)
    yield _metadata("process_sort_index", place, 0, sort_index=place)
    for group in used:
        name = f"group {group}" if group else _NO_GROUP
        yield _metadata("thread_name", place, threads[group], name=name)
        yield _metadata("thread_sort_index", place, threads[group], sort_index=threads[group])


def _metadata(kind: str, process: int, thread: int, **args: object) -> dict[str, Any]:
    return {"ph": "M", "name": kind, "pid": process, "tid": thread, "ts": 0, "args": args}


class _Track:
    """The events of one box."""

    def __init__(self, place: int, box: Box, threads: dict[str, int], start: int, end: int) -> None:
        self._place = place
        self._box = box
        self._threads = threads
        self._start = start
        self._end = end

    def events(self) -> Iterator[dict[str, Any]]:
        begun: dict[_LaunchKey, list[Record]] = {}
        unlaunched: dict[tuple[str, str], Record] = {}
        for record in self._box.records:
            key = (record.group, record.role, record.step, record.event)
            checked = (record.group, record.role)
            if record.event in BEGINS:
                unlaunched.pop(checked, None)
                begun.setdefault(key, []).append(record)
            elif record.event in BEGIN_OF:
                # An end whose begin has been overwritten says nothing about when it began.
                if began := begun.get((*key[:3], BEGIN_OF[record.event])):
                    yield self._launch(began.pop(), record)
            elif record.event == Event.CHECK:
                if (left := unlaunched.get(checked)) is not None:
                    yield self._mark(left, _THREAD)
                unlaunched[checked] = record
            else:
                yield self._mark(record, _SCOPES.get(record.event, _PROCESS))
        for record in unlaunched.values():
            yield self._mark(record, _THREAD)
        for records in begun.values():
            for record in records:
                yield self._launch(record, None)

    def _launch(self, begin: Record, end: Record | None) -> dict[str, Any]:
        how = "replay" if begin.event == Event.REPLAY_BEGIN else "eager"
        name = f"{how} {words.subject(begin)}"
        until = self._end if end is None else end.time_ns
        event = {
            **self._event("X", name if end else f"{name} (has not ended)", how, begin),
            "dur": max(0, until - begin.time_ns) / 1_000,
        }
        if end is None:
            event["args"]["unfinished"] = True
            event["cname"] = "terrible"
        return event

    def _mark(self, record: Record, scope: str) -> dict[str, Any]:
        category = record.divergence or record.event_name
        return {**self._event("i", words.told(record), category, record), "s": scope}

    def _event(self, kind: str, name: str, category: str, record: Record) -> dict[str, Any]:
        return {
            "ph": kind,
            "name": name,
            "cat": category,
            "pid": self._place,
            "tid": self._threads[record.group],
            "ts": (record.time_ns - self._start) / 1_000,
            "args": _arguments(record),
        }


def _arguments(record: Record) -> dict[str, Any]:
    arguments = {
        "step": record.step,
        "role": record.role,
        "batch": record.batch,
        "action": record.action_name,
        "reason": record.reason_name,
        "digest": f"{record.digest:016x}" if record.digest else "",
        "peer": record.peer_rank,
        "flags": ", ".join(record.flag_names),
        "record": record.number,
    }
    return {name: value for name, value in arguments.items() if value not in ("", None)}
