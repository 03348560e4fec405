"""The demo on real processes: what it reports is what happened."""

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from graphguard import audit
from graphguard.demo import processes, story


def demo(*arguments: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-m", "graphguard", "demo", *arguments],
        capture_output=True,
        text=True,
        timeout=200,
        check=False,
    )


@pytest.fixture(scope="module")
def seen(tmp_path_factory: pytest.TempPathFactory) -> tuple[dict[str, Any], Path]:
    folder = tmp_path_factory.mktemp("demo")
    result = demo("--json", "--bound", "5", "--keep", str(folder))
    assert result.returncode == 0, result.stderr + result.stdout
    return json.loads(result.stdout), folder


def test_unguarded_ranks_hang_and_it_shows_where(seen: tuple[dict[str, Any], Path]) -> None:
    unguarded = seen[0]["unguarded"]

    assert unguarded["outcome"] == "hang"
    assert unguarded["waited_seconds"] >= 5.0
    assert [rank["doing"] for rank in unguarded["ranks"]] == [
        "replay 16x2",
        "wait for the other ranks at the end",
    ]
    assert any("in replay" in line for line in unguarded["ranks"][0]["stack"])
    assert any("in barrier" in line for line in unguarded["ranks"][1]["stack"])
    assert unguarded["wrong_outputs"] > 0


def test_guarded_ranks_finish_with_equal_outputs(seen: tuple[dict[str, Any], Path]) -> None:
    guarded = seen[0]["guarded"]

    assert guarded["outcome"] == "completed"
    assert guarded["equal_to_eager"] is True
    verdicts = [(s["batch"], s["role"], s["verdicts"]) for s in guarded["steps"]]
    assert verdicts == [
        (batch, role, [verdict] * 2)
        for batch, verdict in [
            ("16x2", "replay (exact)"),
            ("16x2", "replay (exact)"),
            ("15x2", "pad (padded)"),
            ("15x1", "eager (query_length)"),
        ]
        for role in ("target", "drafter")
    ]


def test_the_audits_are_of_the_files_it_keeps(seen: tuple[dict[str, Any], Path]) -> None:
    told, folder = seen[0]["audit"], seen[1]

    assert told["recorded"] == []
    assert audit.audit(audit.load([folder / "recorded"]).manifests) == []
    assert [finding["rule"] for finding in told["planted"]] == ["collective-count"]
    planted = audit.audit(audit.load([folder / "planted"]).manifests)
    assert [finding.rule for finding in planted] == ["collective-count"]


def test_no_process_is_left_behind(seen: tuple[dict[str, Any], Path]) -> None:
    workers = [
        path
        for path in Path("/proc").glob("[0-9]*/cmdline")
        if b"graphguard.demo.worker" in _content(path)
    ]

    assert workers == []


def test_it_says_so_when_nothing_hangs(monkeypatch: pytest.MonkeyPatch) -> None:
    """The outcome is measured: with a dispatcher that agrees, there is no hang to report."""
    monkeypatch.setenv("PYTHONPATH", os.pathsep.join(sys.path))
    run = processes.run_ranks(2, "enforce", bound=20.0)

    assert run.outcome == "completed"
    assert story._unguarded(run).outcome == "completed"


def test_a_rank_that_ends_with_an_error_is_no_hang() -> None:
    run = processes.run_ranks(2, "no such mode", bound=20.0)

    assert run.outcome == "aborted"
    assert any("does not exist" in line for rank in run.ranks for line in rank.stderr)


@pytest.mark.parametrize("arguments", [("--ranks", "1"), ("--ranks", "99"), ("--bound", "0")])
def test_what_it_cannot_run_is_refused_with_a_hint(arguments: tuple[str, str]) -> None:
    result = demo(*arguments)

    assert result.returncode == 2
    assert "Hint:" in result.stderr
    assert "Traceback" not in result.stderr


def _content(path: Path) -> bytes:
    try:
        return path.read_bytes()
    except OSError:
        return b""
