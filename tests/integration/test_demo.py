"""The demo on real processes: what it reports is what happened."""

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from graphguard import audit
from graphguard.blackbox import choosing
from graphguard.blackbox.merge import merge
from graphguard.demo import processes, seen

Seen = tuple[dict[str, Any], Path]


def demo(*arguments: str, **environment: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-m", "graphguard", "demo", *arguments],
        capture_output=True,
        text=True,
        timeout=200,
        check=False,
        env={**os.environ, **environment},
    )


@pytest.fixture(scope="module")
def told(tmp_path_factory: pytest.TempPathFactory) -> Seen:
    folder = tmp_path_factory.mktemp("demo")
    elsewhere = tmp_path_factory.mktemp("elsewhere")
    # Settings of the user that would change what the ranks do.
    settings = {"GRAPHGUARD_WHEN_STUCK": "report", "GRAPHGUARD_RING_ENTRIES": "0"}
    result = demo(
        "--json",
        "--bound",
        "5",
        "--keep",
        str(folder),
        GRAPHGUARD_DIR=str(elsewhere),
        XDG_RUNTIME_DIR=str(elsewhere),
        **settings,
    )
    assert result.returncode == 0, result.stderr + result.stdout
    assert list(elsewhere.iterdir()) == []
    return json.loads(result.stdout), folder


def test_unguarded_ranks_hang_and_it_shows_where(told: Seen) -> None:
    unguarded = told[0]["unguarded"]

    assert unguarded["outcome"] == "hang"
    assert unguarded["waited_seconds"] >= 5.0
    assert [rank["doing"] for rank in unguarded["ranks"]] == [
        "replay 16x2",
        "wait for the other ranks at the end",
    ]
    assert any("in replay" in line for line in unguarded["ranks"][0]["stack"])
    assert any("in barrier" in line for line in unguarded["ranks"][1]["stack"])
    assert unguarded["wrong_outputs"] > 0


def test_guarded_ranks_finish_with_equal_outputs(told: Seen) -> None:
    guarded = told[0]["guarded"]

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


def test_a_rank_does_what_another_one_had_to_do(told: Seen) -> None:
    guarded, folder = told[0]["guarded"], told[1]

    assert guarded["adoption"]["rank"] == 1
    assert guarded["adoption"]["step"]["verdicts"] == ["eager (adopted)", "eager (input_address)"]
    assert guarded["adoption"]["step"]["difference"] <= 1e-9
    assert guarded["agreed_launches"] == 9
    difference = merge(choosing.load([folder / "guarded"]).boxes).first_difference
    assert difference is not None
    assert difference.step == 9
    assert difference.launches_differ is False


def test_the_audits_are_of_the_files_it_keeps(told: Seen) -> None:
    audits, folder = told[0]["audit"], told[1]

    assert audits["recorded"] == []
    assert audit.audit(audit.load([folder / "guarded"]).manifests) == []
    assert [finding["rule"] for finding in audits["planted"]] == ["collective-count"]
    planted = audit.audit(audit.load([folder / "planted"]).manifests)
    assert [finding.rule for finding in planted] == ["collective-count"]


def test_a_rank_that_diverges_is_refused_before_it_launches(told: Seen) -> None:
    diverging = told[0]["diverging"]

    assert diverging["outcome"] == "ended"
    refusal = diverging["refusal"]
    assert (refusal["rank"], refusal["launch"]) == (1, 6)
    assert refusal["message"].endswith(
        "rank 0: replay of drafter/full 16x2 for 15x2; rank 1: replay of target/full 16x2 for 15x2"
    )
    assert sorted(diverging["sides"]) == ["drafter", "target"]
    assert diverging["launched"] == [0]


def test_the_rank_that_had_launched_is_ended_by_its_watcher(told: Seen) -> None:
    diverging, folder = told[0]["diverging"], told[1]

    assert [end["exit_code"] for end in diverging["ends"]] == [70, 1]
    assert all(end["seconds"] >= 1.0 for end in diverging["ends"])
    timeline = merge(choosing.load([folder / "diverging"]).boxes)
    assert [record.divergence for _, record in timeline.divergences] == ["refused", "peer_refused"]


def test_the_black_boxes_of_a_killed_rank_and_the_others_show_where_each_was(told: Seen) -> None:
    killed = told[0]["killed"]

    assert [end["exit_code"] for end in killed["ends"]] == [70, -9]
    boxes = killed["black_boxes"]
    assert boxes["ranks"] == [0, 1]
    assert boxes["behind"] == [{"rank": 1, "group": "0[0-1]", "step": 5, "behind": 1}]
    assert boxes["first_difference"] is None
    assert boxes["damaged"] == 0
    first, second = (standing["did_last"] for standing in boxes["standings"])
    assert first.startswith("began replay of drafter 15x2 and has not ended; then")
    assert second == "began replay of target 15x2 and has not ended"
    assert [box["process"] for box in boxes["boxes"]] == ["gone", "gone"]


def test_the_black_boxes_that_it_keeps_say_the_same_to_the_command(told: Seen) -> None:
    story, folder = told
    kept = sorted(map(str, folder.glob("*/blackbox.*.ring")))

    assert story["black_boxes"] == kept
    assert len(kept) == 6
    result = subprocess.run(
        [sys.executable, "-m", "graphguard", "blackbox", "--json", str(folder / "killed")],
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    assert json.loads(result.stdout.splitlines()[-1]) == story["killed"]["black_boxes"]


def test_no_process_is_left_behind(told: Seen) -> None:
    workers = [
        path
        for path in Path("/proc").glob("[0-9]*/cmdline")
        if b"graphguard.demo.worker" in _content(path) and str(told[1]) in _environ(path.parent)
    ]

    assert workers == []


def test_it_says_so_when_nothing_hangs(tmp_path: Path) -> None:
    """The outcome is measured: with a guard that enforces, there is no hang to report."""
    run = processes.run_ranks(2, "guarded", bound=20.0, directory=tmp_path)

    assert run.outcome == "completed"
    assert seen.unguarded(run).outcome == "completed"


def test_a_rank_that_ends_with_an_error_is_no_hang(tmp_path: Path) -> None:
    run = processes.run_ranks(2, "no such part", bound=20.0, directory=tmp_path)

    assert run.outcome == "aborted"
    assert any("invalid choice" in line for rank in run.ranks for line in rank.stderr)


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


def _environ(process: Path) -> str:
    return _content(process / "environ").decode(errors="replace")
