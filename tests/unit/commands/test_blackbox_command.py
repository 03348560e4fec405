from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest

from graphguard.blackbox.events import DivergenceKind
from graphguard.commands import main
from tests.unit.blackbox.processes import started
from tests.unit.blackbox.rings import EAGER, Rank, open_ranks


@pytest.fixture
def ranks(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> list[Rank]:
    return open_ranks(tmp_path / "run", 2, monkeypatch)


def run_steps(ranks: list[Rank], *steps: int) -> None:
    for step in steps:
        for rank in ranks:
            rank.run(step)


@contextmanager
def following(directory: Path, *options: str) -> Iterator[subprocess.Popen[str]]:
    command = [sys.executable, "-m", "graphguard", "blackbox", str(directory), "--follow", *options]
    with subprocess.Popen(
        command,
        env={**os.environ, "COLUMNS": "200"},
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    ) as process:
        try:
            yield process
        finally:
            process.kill()
            process.wait(60)


def line_with(process: subprocess.Popen[str], words: str) -> str:
    """Read lines up to one that has these words; a test that waits in vain is ended by pytest."""
    assert process.stdout is not None
    for line in process.stdout:
        if words in line:
            return line
    raise AssertionError(f"the output ended without {words!r}")


def objects(text: str) -> list[dict[str, Any]]:
    return [json.loads(line) for line in text.splitlines()]


def test_equal_ranks_end_with_0(
    tmp_path: Path, ranks: list[Rank], capsys: pytest.CaptureFixture[str]
) -> None:
    run_steps(ranks, *range(1, 21))
    assert main(["blackbox", str(tmp_path / "run")]) == 0
    told = capsys.readouterr().out
    assert "no difference: ranks 0-1 did the same in 20 steps of group tp" in told
    assert "last 10 steps of group tp" in told
    assert main(["blackbox", str(tmp_path / "run"), "--last", "3"]) == 0
    assert "last 3 steps of group tp" in capsys.readouterr().out


def test_rank_that_is_behind_is_no_finding(tmp_path: Path, ranks: list[Rank]) -> None:
    run_steps(ranks, 1)
    ranks[0].run(2)
    assert main(["blackbox", str(tmp_path / "run")]) == 0


def test_difference_ends_with_1(
    tmp_path: Path, ranks: list[Rank], capsys: pytest.CaptureFixture[str]
) -> None:
    ranks[0].run(1)
    ranks[1].run(1, EAGER)
    assert main(["blackbox", str(tmp_path / "run")]) == 1
    assert "first difference: step 1 of group tp" in capsys.readouterr().out


def test_divergence_that_a_rank_recorded_ends_with_1(tmp_path: Path, ranks: list[Rank]) -> None:
    run_steps(ranks, 1)
    ranks[1].diverge(1, DivergenceKind.REFUSED, peer=0)
    assert main(["blackbox", str(tmp_path / "run")]) == 1


def test_damage_ends_with_1(tmp_path: Path, ranks: list[Rank]) -> None:
    run_steps(ranks, 1)
    content = bytearray(ranks[0].box.path.read_bytes())
    content[4096 + 128 * 128 + 2 * 64 + 20] ^= 0xFF
    damaged = tmp_path / "damaged.ring"
    damaged.write_bytes(content)
    assert main(["blackbox", str(damaged)]) == 1
    assert main(["blackbox", str(ranks[1].box.path), str(tmp_path / "absent")]) == 1


def test_nothing_to_show_ends_with_2(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["blackbox", str(tmp_path)]) == 2
    assert main(["blackbox", str(tmp_path / "absent")]) == 2
    assert main(["blackbox", str(tmp_path / "absent"), "--follow"]) == 2
    captured = capsys.readouterr()
    assert captured.out == ""
    assert captured.err.count("Hint:") == 3


@pytest.mark.parametrize("value", ["-1", "many", "1.5", "9" * 10])
def test_number_of_steps_that_is_none_is_refused(value: str, tmp_path: Path) -> None:
    with pytest.raises(SystemExit) as caught:
        main(["blackbox", str(tmp_path), "--last", value])
    assert caught.value.code == 2


def test_json_is_every_record_and_then_a_summary(
    tmp_path: Path, ranks: list[Rank], capsys: pytest.CaptureFixture[str]
) -> None:
    run_steps(ranks, *range(1, 21))
    assert main(["blackbox", str(tmp_path / "run"), "--json"]) == 0
    *records, summary = objects(capsys.readouterr().out)
    assert len(records) == 2 * 20 * 3
    assert [record["time_ns"] for record in records] == sorted(r["time_ns"] for r in records)
    assert all({"rank", "step", "role", "event", "verdict"} <= record.keys() for record in records)
    assert (summary["summary"], summary["ranks"]) == (True, [0, 1])
    assert main(["blackbox", str(tmp_path / "run"), "--json", "--last", "2"]) == 0
    *records, _ = objects(capsys.readouterr().out)
    assert {record["step"] for record in records} == {19, 20}


def test_rank_that_was_killed_is_shown_as_gone(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    code = """
box = process_box()
role, group = box.name("target"), box.name("tp")
box.ring.check(role, group, 1, 7, 16, 2, 32, 0, 0, 0, 0)
box.ring.mark(Event.REPLAY_BEGIN)
say("in a replay")
wait()
"""
    with started(code, tmp_path / "run") as process:
        assert main(["blackbox", str(tmp_path / "run"), "--json"]) == 0
        summary = objects(capsys.readouterr().out)[-1]
        assert [box["process"] for box in summary["boxes"]] == ["running"]
        process.send_signal(signal.SIGKILL)
        process.wait(60)
    assert main(["blackbox", str(tmp_path / "run"), "--json"]) == 0
    summary = objects(capsys.readouterr().out)[-1]
    assert [box["process"] for box in summary["boxes"]] == ["gone"]
    (standing,) = summary["standings"]
    assert standing["did_last"] == "began replay of target 16x2 and has not ended"


def test_trace_is_written_besides(
    tmp_path: Path, ranks: list[Rank], capsys: pytest.CaptureFixture[str]
) -> None:
    run_steps(ranks, 1, 2)
    file = tmp_path / "trace.json"
    assert main(["blackbox", str(tmp_path / "run"), "--trace", str(file)]) == 0
    assert "no difference" in capsys.readouterr().out
    launches = [e for e in json.loads(file.read_text())["traceEvents"] if e["ph"] == "X"]
    assert len(launches) == 4
    nowhere = str(tmp_path / "absent" / "trace.json")
    assert main(["blackbox", str(tmp_path / "run"), "--trace", nowhere]) == 2
    assert "cannot write" in capsys.readouterr().err


def test_following_tells_new_records_until_all_processes_have_ended(
    tmp_path: Path, ranks: list[Rank]
) -> None:
    run_steps(ranks, 1, 2, 3)
    with following(tmp_path / "run", "--last", "1") as process:
        line_with(process, "last 1 step of group tp")
        line_with(process, "step 3")
        ranks[1].run(4, EAGER)
        line_with(process, "rank 1, tp step 4: decided to run target 16x2 eagerly")
        ranks[0].run(4)
        ranks[0].box.close()
        line_with(process, "rank 0: closed its black box")
        ranks[1].box.disown()
        line_with(process, "first difference: step 4 of group tp")
        assert process.wait(60) == 1


def test_following_waits_for_a_directory_to_fill(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "run").mkdir(mode=0o700)
    with following(tmp_path / "run", "--json") as process:
        (rank,) = open_ranks(tmp_path / "run", 1, monkeypatch)
        rank.run(1)
        assert json.loads(line_with(process, "check"))["step"] == 1
        rank.box.close()
        summary = json.loads(line_with(process, '"summary"'))
        assert summary["boxes"][0]["process"] == "closed"
        assert process.wait(60) == 0


def test_interrupted_following_ends_as_tail_does_and_still_sums_up(
    tmp_path: Path, ranks: list[Rank]
) -> None:
    run_steps(ranks, 1)
    file = tmp_path / "trace.json"
    with following(tmp_path / "run", "--json", "--trace", str(file)) as process:
        line_with(process, "replay_end")
        process.send_signal(signal.SIGINT)
        assert json.loads(line_with(process, '"summary"'))["ranks"] == [0, 1]
        assert process.wait(60) == 130
        assert process.stderr is not None
        assert process.stderr.read() == ""
    assert json.loads(file.read_text())["traceEvents"]


def test_following_says_so_when_it_could_not_keep_up(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (rank,) = open_ranks(tmp_path / "run", 1, monkeypatch, entries=16)
    rank.run(1)
    with following(tmp_path / "run") as process:
        line_with(process, "last 1 step")
        line_with(process, "step 1")
        os.kill(process.pid, signal.SIGSTOP)
        run_steps([rank], *range(2, 40))
        rank.box.close()
        os.kill(process.pid, signal.SIGCONT)
        line_with(process, "closed its black box")
        assert process.wait(60) == 0
        assert process.stderr is not None
        assert "records were overwritten before they could be shown" in process.stderr.read()
