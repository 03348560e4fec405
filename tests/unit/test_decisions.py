"""The decision log: what is written, for whom, and what a bad disk costs."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from graphguard import decisions
from graphguard.batch import BatchDescriptor
from graphguard.decisions import MAX_WAITING, DecisionLog, process_decisions
from graphguard.errors import ConfigurationError
from graphguard.verdict import Action, Phase, Reason


@pytest.fixture
def log(tmp_path: Path) -> Iterator[DecisionLog]:
    found = DecisionLog(f"{tmp_path}/run/decisions.jsonl")
    yield found
    found.close()


def lines(log: DecisionLog) -> list[dict[str, Any]]:
    log.flush()
    return [json.loads(line) for line in log.path.read_bytes().splitlines()]


def pad(log: DecisionLog, step: int = 1) -> None:
    log.decision("target", step, BatchDescriptor.of(15, 2), Action.PAD, Reason.PADDED)


def test_line_says_who_decided_what_on_which_batch_and_why(log: DecisionLog) -> None:
    batch = BatchDescriptor.of(3, 2, Phase.PREFILL)
    log.decision(
        "target", 41, batch, Action.EAGER, Reason.WRONG_PHASE, graph="16x2", group="tp:0[0-1]"
    )

    (line,) = lines(log)

    moment = line.pop("time")
    assert abs(time.time() - _seconds(moment)) < 60
    assert line == {
        "rank": 0,
        "pid": os.getpid(),
        "role": "target",
        "step": 41,
        "batch": "3x2:prefill",
        "action": "eager",
        "reason": "wrong_phase",
        "graph": "16x2",
        "group": "tp:0[0-1]",
    }


def _seconds(moment: str) -> float:
    from datetime import datetime

    return datetime.fromisoformat(moment.replace("Z", "+00:00")).timestamp()


def test_replay_of_the_exact_graph_is_no_line(log: DecisionLog) -> None:
    log.decision("target", 1, BatchDescriptor.of(16, 2), Action.REPLAY, Reason.EXACT)
    log.decision("target", 2, BatchDescriptor.of(16, 2), Action.EAGER, Reason.EXACT)
    log.decision("target", 3, BatchDescriptor.of(16, 2), Action.REPLAY, Reason.ADOPTED)

    assert [(line["step"], line["graph"], line["group"]) for line in lines(log)] == [
        (2, None, None),
        (3, None, None),
    ]


def test_file_and_its_directory_are_private(log: DecisionLog) -> None:
    assert log.path.stat().st_mode & 0o777 == 0o600
    assert log.path.parent.stat().st_mode & 0o777 == 0o700
    assert log.path.name == f"decisions.rank0.{os.getpid()}.jsonl"


def test_no_file_is_written_over_and_no_link_followed(tmp_path: Path, log: DecisionLog) -> None:
    (log.path.parent / f"decisions.rank0.{os.getpid()}.1.jsonl").symlink_to(tmp_path / "victim")
    second = DecisionLog(str(log.path.parent))
    pad(second)
    second.close()

    assert second.path.name == f"decisions.rank0.{os.getpid()}.2.jsonl"
    assert not (tmp_path / "victim").exists()


def test_directory_that_others_may_write_to_is_refused(tmp_path: Path) -> None:
    (tmp_path / "shared").mkdir()
    (tmp_path / "shared").chmod(0o777)
    with pytest.raises(ConfigurationError, match="others could replace"):
        DecisionLog(f"{tmp_path}/shared/decisions.jsonl")
    assert list((tmp_path / "shared").iterdir()) == []


def test_thread_writes_by_itself(log: DecisionLog) -> None:
    pad(log)
    deadline = time.monotonic() + 10
    while not log.path.read_bytes():
        assert time.monotonic() < deadline
        time.sleep(0.05)
    assert log.path.read_bytes().endswith(b"\n")


def test_slow_disk_never_holds_up_a_step_and_what_is_dropped_is_said(
    log: DecisionLog, monkeypatch: pytest.MonkeyPatch
) -> None:
    stuck, pwrite = threading.Event(), os.pwrite

    def slow(descriptor: int, content: bytes, offset: int) -> int:
        stuck.wait(30)
        return pwrite(descriptor, content, offset)

    monkeypatch.setattr(os, "pwrite", slow)
    pad(log)
    deadline = time.monotonic() + 10
    while log._waiting:
        assert time.monotonic() < deadline
        time.sleep(0.01)
    began = time.monotonic()
    for step in range(MAX_WAITING + 7):
        pad(log, step)
    assert time.monotonic() - began < 5
    assert log.dropped == 7

    stuck.set()

    written = lines(log)
    assert len(written) == 1 + MAX_WAITING + 1
    assert written[-1].keys() == {"time", "rank", "pid", "dropped"}
    assert written[-1]["dropped"] == 7


def test_full_disk_costs_whole_lines_and_is_said_once(
    log: DecisionLog, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    pwrite = os.pwrite

    def full(descriptor: int, content: bytes, offset: int) -> int:
        if offset:
            raise OSError(28, "No space left on device")
        return pwrite(descriptor, content[:20], offset)

    monkeypatch.setattr(os, "pwrite", full)
    for _ in range(2):
        pad(log)
        pad(log)
        assert lines(log) == []
    monkeypatch.setattr(os, "pwrite", pwrite)
    pad(log, 9)

    assert [line.get("step", line.get("dropped")) for line in lines(log)] == [9, 4]
    assert log.dropped == 4
    assert [record.getMessage() for record in caplog.records] == [
        f"decisions are not written to {log.path}: No space left on device"
    ]


def test_file_does_not_grow_without_bound(
    log: DecisionLog, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(decisions, "MAX_FILE_BYTES", 1_000)
    for step in range(20):
        pad(log, step)
        log.flush()

    assert 0 < log.path.stat().st_size <= 1_000
    assert len(lines(log)) + log.dropped == 20


def test_what_cannot_be_written_is_one_line_less(log: DecisionLog) -> None:
    class Broken:
        def __str__(self) -> str:
            raise RuntimeError

    log.decision("target", 1, Broken(), Action.EAGER, Reason.NO_GRAPH)
    pad(log, 2)
    log.decision("target", 3, "x" * 1_000, Action.EAGER, Reason.NO_GRAPH)

    written = lines(log)
    assert written[0]["step"] == 2
    assert len(written[1]["batch"]) == 256
    assert log.dropped == 1


PROGRAM = """
import os, sys
from graphguard.decisions import process_decisions
log = process_decisions()
log.decision("target", 1, "15x2", "pad", "padded")
"""


def run(text: str, target: Path) -> list[list[dict[str, Any]]]:
    settings = {**os.environ, "GRAPHGUARD_DECISIONS": str(target), "RANK": "3"}
    subprocess.run([sys.executable, "-c", PROGRAM + text], env=settings, check=True, timeout=30)
    files = sorted((target.parent if target.suffix else target).iterdir())
    return [[json.loads(line) for line in path.read_bytes().splitlines()] for path in files]


def test_process_that_ends_writes_what_waits(tmp_path: Path) -> None:
    ((line,),) = run("", tmp_path / "run" / "d.jsonl")
    assert line["rank"] == 3


def test_forked_child_writes_a_file_of_its_own(tmp_path: Path) -> None:
    text = """
if os.fork() == 0:
    own = process_decisions()
    assert own is not log
    own.decision("drafter", 2, "15x1", "eager", "no_graph")
    sys.exit(0)
os.wait()
"""
    files = run(text, tmp_path / "d.jsonl")
    assert sorted([line["role"] for line in file] for file in files) == [["drafter"], ["target"]]


def test_nothing_is_written_unless_asked_for(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("GRAPHGUARD_DECISIONS", raising=False)
    assert process_decisions() is None


def test_place_that_cannot_be_used_is_one_warning(tmp_path: Path) -> None:
    (tmp_path / "file").write_bytes(b"")
    text = (
        "from graphguard.decisions import process_decisions as ask\n"
        "assert ask() is None and ask() is None"
    )
    settings = {**os.environ, "GRAPHGUARD_DECISIONS": f"{tmp_path}/file/d.jsonl"}
    result = subprocess.run(
        [sys.executable, "-c", text],
        env=settings,
        check=True,
        timeout=30,
        capture_output=True,
        text=True,
    )
    assert result.stderr.count("no decisions are written") == 1
    assert "Hint: set GRAPHGUARD_DECISIONS" in result.stderr
