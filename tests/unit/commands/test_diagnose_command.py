from __future__ import annotations

import os
import subprocess
from pathlib import Path

import pytest
from msgspec.json import decode

from graphguard import manifest
from graphguard.commands import main
from graphguard.manifest import Manifest
from tests.unit.audit.jobs import call, graph

LOGS = Path(__file__).parents[2] / "data" / "logs"
HUNG = str(LOGS / "vllm-padded-decode.log")
HEALTHY = str(LOGS / "real-0.32.0-healthy.log")
UNKNOWN = str(LOGS / "no-engine.log")


def test_a_log_with_trouble_ends_with_1_and_names_lines(
    capsys: pytest.CaptureFixture[str],
) -> None:
    assert main(["diagnose", HUNG]) == 1
    told = capsys.readouterr().out
    assert "15 requests × 2 tokens = 30 tokens, decode, uniform" in told
    assert "the FULL graph for 32 tokens (16 × 2) would serve it, with 1 padded slot" in told
    assert "[-1] are placeholders" in told
    assert "padding (consistent with it, not shown)" in told
    assert "vllm-project/vllm#51593" in told


@pytest.mark.parametrize("log", [HEALTHY, UNKNOWN])
def test_a_log_without_trouble_ends_with_0(log: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["diagnose", log]) == 0
    assert log in capsys.readouterr().out


def test_json_holds_what_the_issue_promises_of_each_log(
    capsys: pytest.CaptureFixture[str],
) -> None:
    assert main(["diagnose", "--json", HEALTHY, HUNG]) == 1
    document = decode(capsys.readouterr().out)
    assert (document["schema"], document["version"]) == ("graphguard.diagnose", 1)
    healthy, hung = document["logs"]
    assert [each["class"] for each in healthy["supported"]] == ["healthy"]
    for log in (healthy, hung):
        assert log.keys() >= {
            "path",
            "engine",
            "version",
            "fatal",
            "step",
            "supported",
            "excluded",
            "timeline",
            "known_threads",
            "first_cause",
            "try_next",
        }
    assert hung["step"].keys() >= {
        "num_reqs",
        "num_tokens",
        "query_len",
        "uniform",
        "phase",
        "placeholders",
        "padded_slots",
    }
    for each in (*hung["supported"], *hung["excluded"], *hung["known_threads"], *hung["try_next"]):
        assert each["evidence"]
        assert all(evidence["line"] > 0 for evidence in each["evidence"])


def test_what_cannot_be_read_ends_with_2(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["diagnose", str(tmp_path / "absent.log")]) == 2
    assert main(["diagnose", str(tmp_path)]) == 2
    assert main(["diagnose", HUNG, "--bundle", str(tmp_path)]) == 2
    assert main(["diagnose", HUNG, "--bundle", HUNG]) == 2
    captured = capsys.readouterr()
    assert captured.out == ""
    assert captured.err.count("Hint:") == 4


def test_a_pipe_is_read_to_its_end(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    pipe = tmp_path / "pipe"
    os.mkfifo(pipe)
    write = 'echo "EngineCore encountered a fatal error." > "$0"'
    with subprocess.Popen(["sh", "-c", write, str(pipe)]) as writer:
        try:
            assert main(["diagnose", str(pipe)]) == 1
        finally:
            writer.kill()
    assert "it ended on line 1" in capsys.readouterr().out


def written(directory: Path, *counts: int) -> Path:
    for rank, count in enumerate(counts):
        graphs = (graph(call(count=count, group="0[0-1]", size=2)),)
        manifest.write(Manifest(rank, len(counts), graphs), directory)
    return directory


def test_manifests_of_a_bundle_decide_what_the_log_leaves_open(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    bundle = tmp_path / "bundle"
    written(bundle / "node0", 8, 16)
    assert main(["diagnose", "--json", HUNG, "--bundle", str(bundle)]) == 1
    log = decode(capsys.readouterr().out)["logs"][0]
    first = log["supported"][0]
    assert (first["class"], first["strength"]) == ("rank", "direct")
    assert "manifest.rank" in first["evidence"][0]["text"]
    assert "rank" not in [each["class"] for each in log["undecided"]]


def test_manifests_that_agree_leave_what_was_launched_open(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    bundle = written(tmp_path / "bundle", 8, 8)
    assert main(["diagnose", "--json", HUNG, "--bundle", str(bundle)]) == 1
    log = decode(capsys.readouterr().out)["logs"][0]
    assert "rank" in [each["class"] for each in log["undecided"]]
    assert any("2 manifest(s) compared, 0 difference(s)" in note for note in log["notes"])
