"""``graphguard run`` on two real ranks with gloo."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from contextlib import suppress
from pathlib import Path
from typing import Any

import pytest
from msgspec.json import decode

from graphguard.blackbox.choosing import Rings
from graphguard.blackbox.merge import merge

ROOT = Path(__file__).parents[2]
TIMEOUT_SECONDS = 120.0

pytestmark = pytest.mark.timeout(280)


def start(program: str, directory: Path) -> subprocess.Popen[str]:
    torchrun = ["torch.distributed.run", "--standalone", "--nproc-per-node", "2"]
    return subprocess.Popen(
        [
            *(sys.executable, "-m", "graphguard", "run", "--output", str(directory), "--"),
            *(sys.executable, "-m", *torchrun, "-m", "tests.distributed.run_programs", program),
        ],
        cwd=ROOT,
        env={
            **os.environ,
            "PYTHONPATH": str(ROOT),
            "GLOO_SOCKET_IFNAME": "lo",
            "GRAPHGUARD_RING_ENTRIES": "1024",
        },
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        start_new_session=True,
    )


def finish(process: subprocess.Popen[str], directory: Path) -> str:
    """Wait for the end and return what was said; end all that the run started if it is too long."""
    try:
        return process.communicate(timeout=TIMEOUT_SECONDS)[1]
    except subprocess.TimeoutExpired:
        # torchrun gives its ranks sessions of their own; each process has left a note here.
        for note in (directory / "processes").iterdir():
            with suppress(ProcessLookupError):
                os.kill(int(note.name.rpartition(".")[2]), signal.SIGKILL)
        process.kill()
        raise AssertionError(process.communicate()[1]) from None


def report(directory: Path) -> dict[str, Any]:
    told: dict[str, Any] = decode((directory / "report.json").read_bytes())
    return told


def test_ranks_that_capture_the_same_are_recorded_and_nothing_is_found(tmp_path: Path) -> None:
    process = start("alike", tmp_path / "run")
    said = finish(process, tmp_path / "run")

    assert process.returncode == 0, said
    assert "2 ranks, 1 graph, 4 collective calls: no difference found" in said
    # torchrun and the two ranks.
    assert report(tmp_path / "run")["processes"] == {"loaded": 3, "refused": []}


def test_ranks_that_capture_different_calls_are_found_though_their_program_ends_well(
    tmp_path: Path,
) -> None:
    process = start("one_rank_reduces_more", tmp_path / "run")
    said = finish(process, tmp_path / "run")

    assert process.returncode == 1
    assert "error: collective-missing" in said
    assert report(tmp_path / "run")["exit_code"] == 0


def test_graphs_that_the_program_does_not_record_are_recorded_with_their_launches(
    tmp_path: Path,
) -> None:
    process = start("unrecorded", tmp_path / "run")
    said = finish(process, tmp_path / "run")

    assert process.returncode == 0, said
    assert "2 ranks, 1 graph, 2 collective calls: no difference found" in said
    assert report(tmp_path / "run")["blackbox"]["ranks"] == [0, 1]


def test_a_program_that_hangs_and_is_killed_leaves_its_black_boxes_and_is_audited(
    tmp_path: Path,
) -> None:
    process = start("hang", tmp_path / "run")
    deadline = time.monotonic() + TIMEOUT_SECONDS
    try:
        while not _stands_in_a_replay(tmp_path / "run"):
            assert time.monotonic() < deadline, "no rank has begun the replay that hangs"
            assert process.poll() is None, process.communicate()[1]
            time.sleep(0.05)
        # Killed, so that they can say nothing any more; torchrun then ends by itself.
        for box in Rings([tmp_path / "run"]).read().boxes:
            os.kill(box.pid, signal.SIGKILL)
    finally:
        said = finish(process, tmp_path / "run")

    assert process.returncode == 1
    assert "began replay of target 4x2 and has not ended" in said
    assert "2 ranks, 1 graph, 2 collective calls: no difference found" in said
    told = report(tmp_path / "run")
    assert {place["rank"]: place["ended"] for place in told["blackbox"]["standings"]} == {
        0: False,
        1: True,
    }


def _stands_in_a_replay(directory: Path) -> bool:
    if not directory.exists():
        return False
    timeline = merge(Rings([directory]).read().boxes)
    begun = [s for s in timeline.standings if s.begun is not None and s.step > 1]
    return len(timeline.boxes) == 2 and bool(begun)
