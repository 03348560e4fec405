from __future__ import annotations

from pathlib import Path

import pytest

from graphguard.audit.logs import read_bytes, read_log
from graphguard.reporters.diagnosis import render

LOGS = Path(__file__).parents[2] / "data" / "logs"


def test_what_is_only_consistent_is_told_apart_from_what_the_log_shows() -> None:
    told = render([read_log(LOGS / "vllm-padded-decode.log")])
    assert "  stall: a step did not end in time" in told
    assert "  padding (consistent with it, not shown): " in told
    assert "leads, not findings" in told


def test_every_reading_is_told_with_its_lines() -> None:
    told = render([read_log(LOGS / "real-0.32.0-killed-worker.log")]).splitlines()
    start = told.index("supported by the evidence")
    end = told.index("try next")
    readings = [line for line in told[start:end] if line.startswith("  ")]
    assert readings
    assert all("[line" in line for line in readings)


def test_an_end_without_a_reason_is_told_as_one(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("COLUMNS", "100")
    diagnosis = read_bytes(b"EngineCore encountered a fatal error.\n", "engine.log")
    told = render([diagnosis])
    assert diagnosis.trouble
    assert "supported" not in told
    assert "stall: the engine gave up, and the lines before it do not say why" in told


def test_a_log_cannot_move_the_cursor() -> None:
    evil = "EngineCore encountered a fatal error. \x1b[2J\x07\x9b2J\u202e\n"
    told = render([read_bytes(evil.encode(), "a\x1b[1m.log")])
    assert all(line.isprintable() for line in told.splitlines())


def test_nothing_found_is_said() -> None:
    assert "nothing found" in render([read_bytes(b"", "empty.log")])
