"""Black boxes as JSON for programs: one object a line. Fields may be added; what is there stays."""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence
from typing import Any

import msgspec

from graphguard.blackbox import words
from graphguard.blackbox.choosing import Chosen
from graphguard.blackbox.comparing import FirstDifference, Side
from graphguard.blackbox.merge import Standing, Timeline
from graphguard.blackbox.reading import Box
from graphguard.blackbox.records import Record

SCHEMA = "graphguard.blackbox"
VERSION = 1

# What JSON does not escape by itself, and more than that; most of it stays.
_UNUSUAL = re.compile(r"[^\x20-\x7e\n]")


class Line(msgspec.Struct, frozen=True, gc=False):
    """A record as it is printed. ``None`` stands for what a record of its kind does not have."""

    rank: int
    step: int
    role: str
    event: str
    verdict: str | None
    time_ns: int
    group: str | None
    action: str | None
    reason: str | None
    batch: str | None
    digest: str
    peer: int | None
    divergence: str | None
    note: str | None
    flags: tuple[str, ...]
    detail: int
    number: int
    pid: int
    host: str


def records(boxes: Sequence[Box], shown: Iterable[tuple[int, Record]]) -> str:
    """Return records, each as an object on a line of its own."""
    encoder = msgspec.json.Encoder()
    return json_lines(
        encoder.encode_lines([_line(boxes[member], record) for member, record in shown])
    )


def summary(timeline: Timeline, chosen: Chosen) -> str:
    """Return what was found, as the last line."""
    document = {
        "summary": True,
        "schema": SCHEMA,
        "version": VERSION,
        "ranks": sorted({box.rank for box in timeline.boxes}),
        "first_difference": _difference(timeline),
        "behind": [
            {**_place(timeline, standing), "behind": standing.behind}
            for standing in timeline.standings
            if standing.behind
        ],
        "damaged": timeline.damaged,
        "divergences": len(timeline.divergences),
        "compared": [
            {
                "group": comparison.group,
                "ranks": _ranks(timeline, comparison.members),
                "steps": comparison.steps,
            }
            for comparison in timeline.comparisons
        ],
        "standings": [
            {
                **_place(timeline, standing),
                "did_last": words.did_last(standing),
                "ended": standing.begun is None,
                "time_ns": standing.last.time_ns if standing.last else None,
            }
            for standing in timeline.standings
        ],
        "boxes": [
            {
                "path": box.path,
                "rank": box.rank,
                "world_size": box.world_size,
                "host": box.host,
                "pid": box.pid,
                "process": words.process(box),
                "records": len(box.records),
                "damaged": box.damaged,
            }
            for box in timeline.boxes
        ],
        "left_out": chosen.left_out,
        "unreadable": chosen.unreadable,
    }
    return json_lines(msgspec.json.encode(document) + b"\n")


def json_lines(encoded: bytes) -> str:
    """Return JSON in which nothing but the end of an object moves the cursor or ends a line."""
    if encoded.isascii() and b"\x7f" not in encoded:
        return encoded.decode()
    return _UNUSUAL.sub(_escaped, encoded.decode())


def _escaped(match: re.Match[str]) -> str:
    character = match[0]
    if character.isprintable():
        return character
    code = character.encode("utf-16-be").hex()
    return "".join(f"\\u{code[i : i + 4]}" for i in range(0, len(code), 4))


def _line(box: Box, record: Record) -> Line:
    return Line(
        box.rank,
        record.step,
        record.role,
        record.event_name,
        record.verdict or None,
        record.time_ns,
        record.group or None,
        record.action_name or None,
        record.reason_name or None,
        record.batch or None,
        f"{record.digest:016x}",
        record.peer_rank,
        record.divergence or None,
        record.note or None,
        record.flag_names,
        record.detail,
        record.number,
        box.pid,
        box.host,
    )


def _place(timeline: Timeline, standing: Standing) -> dict[str, Any]:
    return {
        "rank": timeline.boxes[standing.member].rank,
        "group": standing.group or None,
        "step": standing.step,
    }


def _difference(timeline: Timeline) -> dict[str, Any] | None:
    difference: FirstDifference | None = timeline.first_difference
    if difference is None:
        return None
    return {
        "group": difference.group,
        "step": difference.step,
        "time_ns": difference.time_ns,
        "launches_differ": difference.launches_differ,
        "sides": [_side(timeline, side) for side in difference.sides],
    }


def _side(timeline: Timeline, side: Side) -> dict[str, Any]:
    return {
        "ranks": _ranks(timeline, side.members),
        "decided": _told(side.check),
        "launched": _told(side.launch),
    }


def _told(record: Record | None) -> dict[str, Any] | None:
    if record is None:
        return None
    return {
        "role": record.role,
        "batch": record.batch or None,
        "verdict": record.verdict or None,
        "event": record.event_name,
        "digest": f"{record.digest:016x}",
        "text": words.told(record),
    }


def _ranks(timeline: Timeline, members: Iterable[int]) -> list[int]:
    return [timeline.boxes[member].rank for member in members]
