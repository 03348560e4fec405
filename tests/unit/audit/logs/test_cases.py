"""Every log in ``tests/data/logs`` is read as the JSON beside it says.

``source`` in the JSON says what a log is: printed by a real engine, lines that a report quotes, or
written after the formats of an engine's code. No log in it is a copy of somebody's log.
"""

from __future__ import annotations

import io
from pathlib import Path
from typing import Any

import pytest
from msgspec.json import decode

from graphguard.audit.logs import as_json, read_log, scanning
from graphguard.audit.logs.reading import read_stream

LOGS = Path(__file__).parents[3] / "data" / "logs"
CASES = sorted(path.stem for path in LOGS.glob("*.json"))
FILLER = b'INFO:     10.0.0.7:52144 - "GET /health HTTP/1.1" 200 OK\n' * 2_000
FILLER_LINES = FILLER.count(b"\n")


def expected(case: str) -> dict[str, Any]:
    content: dict[str, Any] = decode((LOGS / f"{case}.json").read_bytes())["expect"]
    return content


def assert_as_expected(found: dict[str, Any], want: dict[str, Any], moved: int = 0) -> None:
    for name in want.keys() & {"supported", "excluded", "undecided"}:
        classes = sorted(reading["class"] for reading in found[name])
        assert classes == sorted(want[name]), name
    for name in want.keys() & {"fatal", "first_cause"}:
        line = found[name] and found[name]["line"]
        assert line == (want[name] and want[name] + moved), name
    for name in want.keys() & {"engine", "version"}:
        assert found[name] == want[name], name
    if "step" in want:
        told = want["step"] and {name: found["step"][name] for name in want["step"]}
        assert told == want["step"]
    threads = {thread["thread"] for thread in found["known_threads"]}
    assert threads >= set(want.get("threads", ()))


def test_there_are_enough_logs() -> None:
    assert len(CASES) >= 30
    assert sum(case.startswith("real-") for case in CASES) >= 5


@pytest.mark.parametrize("case", CASES)
def test_a_log_is_read_as_expected(case: str) -> None:
    assert_as_expected(as_json(read_log(LOGS / f"{case}.log")), expected(case))


@pytest.mark.parametrize("case", CASES)
def test_every_statement_names_lines_of_the_log(case: str) -> None:
    path = LOGS / f"{case}.log"
    found = read_log(path)
    lines = path.read_bytes().count(b"\n") + 1
    readings = [*found.supported, *found.excluded, *found.undecided]
    for evidence in (*(r.evidence for r in readings), *(a.evidence for a in found.try_next)):
        assert evidence
        assert all(1 <= each.line <= lines for each in evidence)
    assert all(1 <= moment.line <= lines for moment in found.timeline)
    assert [moment.line for moment in found.timeline] == sorted(m.line for m in found.timeline)


IN_BLOCKS = [
    case
    for case in CASES
    # Without a level, a log is searched for fewer things once it is large: docs/diagnose.md.
    if not case.startswith(("utf-16", "seed-", "no-engine", "empty", "truncated"))
]


@pytest.mark.parametrize("case", IN_BLOCKS)
def test_what_is_searched_in_blocks_is_read_the_same(
    case: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Between what is read line by line at the start and at the end stands the trouble."""
    monkeypatch.setattr(scanning, "DETAILED_BYTES", len(FILLER) // 2)
    monkeypatch.setattr(scanning, "END_BYTES", len(FILLER) // 2)
    monkeypatch.setattr(scanning, "BLOCK_BYTES", 1 << 15)
    # Not splitlines, which parts at a carriage return too.
    lines = (LOGS / f"{case}.log").read_bytes().rstrip(b"\n").split(b"\n")
    want = expected(case)
    first = min(filter(None, (want.get("first_cause"), want.get("fatal"))), default=len(lines))
    before = first - 1 if first <= 3 else min(first - 3, len(lines) - 1)
    head = b"".join(line + b"\n" for line in lines[:before])
    tail = b"".join(line + b"\n" for line in lines[before:])
    # The filler at the end keeps the lines out of what is read line by line there.
    found = as_json(read_stream(io.BytesIO(head + FILLER + tail + FILLER), case))
    assert found["lines"] == len(lines) + 2 * FILLER_LINES
    assert_as_expected(found, want, FILLER_LINES)
