from __future__ import annotations

import json
import os
import subprocess
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from msgspec.json import decode, encode

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


def stalled(directory: Path, **files: object) -> Path:
    """Write the evidence of a stall as graphguard collects it."""
    made = directory / "stall-20261121T100000Z-node0-job"
    (made / "stacks").mkdir(parents=True)
    content: dict[str, object] = {
        "index.json": {"format": 1, "job": "0123", "host": "node0", "missing": {"gpus": "no NVML"}},
        "verdict.json": {
            "format": 1,
            "stall_class": "host-stuck",
            "ranks": [1],
            "sentence": "rank 1 has not launched step 7 of tp:0, which rank 0 waits in",
            "evidence": [{"what": "step 6 is its last", "source": "rings/blackbox.rank1.7.ring"}],
            "not_known": ["how far the replay of rank 0 got"],
        },
        "states.json": {"states": [{"rank": 1, "pid": 7, "process": {"state": "running"}}]},
        "stacks/7.json": {
            "pid": 7,
            "engine": "py-spy",
            "threads": [
                {
                    "tid": 7,
                    "name": "MainThread",
                    "main": True,
                    "frames": [{"function": "spin", "file": "model.py", "line": 12}],
                }
            ],
        },
        "afterwards.jsonl": b'{"time": "10:00:08", "what": "recovered", "seconds": 8.5}\n',
        **files,
    }
    for name, told in content.items():
        (made / name).write_bytes(told if isinstance(told, bytes) else encode(told))
    return made


@pytest.mark.parametrize("inside", [True, False])
def test_the_evidence_of_a_stall_needs_no_log(
    inside: bool, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    made = stalled(tmp_path)
    assert main(["diagnose", "--bundle", str(made if inside else tmp_path)]) == 1
    told = capsys.readouterr().out
    assert "host-stuck: rank 1 has not launched step 7 of tp:0" in told
    assert "not known: how far the replay of rank 0 got" in told
    assert "spin (model.py:12)" in told
    assert "gpus: no NVML" in told
    assert "afterwards: 10:00:08 recovered" in told


def test_the_verdict_of_a_stall_decides_what_the_log_leaves_open(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    made = stalled(tmp_path)
    assert main(["diagnose", "--json", HUNG, "--bundle", str(made)]) == 1
    document = decode(capsys.readouterr().out)
    first = document["logs"][0]["supported"][0]
    assert (first["class"], first["strength"]) == ("host-stuck", "direct")
    assert "rank 1 has not launched step 7" in first["why"]
    assert first["evidence"][0]["text"].endswith("verdict.json")
    assert "host-stuck" not in [each["class"] for each in document["logs"][0]["undecided"]]
    assert document["stall"]["verdict"]["stall_class"] == "host-stuck"
    assert document["stall"]["stacks"][0]["threads"][0]["frames"][0]["function"] == "spin"


def test_the_end_of_the_log_in_the_evidence_is_read(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    made = stalled(tmp_path, **{"log-tail.txt": Path(HUNG).read_bytes()})
    assert main(["diagnose", "--json", "--bundle", str(made)]) == 1
    (log,) = decode(capsys.readouterr().out)["logs"]
    assert log["path"] == str(made / "log-tail.txt")
    assert log["engine"] == "vllm"


def test_the_newest_of_several_is_read(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    older = stalled(tmp_path)
    older.rename(tmp_path / "stall-20251121T100000Z-node0-job")
    newest = stalled(tmp_path)
    assert main(["diagnose", "--json", "--bundle", str(tmp_path)]) == 1
    stall = decode(capsys.readouterr().out)["stall"]
    assert (stall["path"], stall["others"]) == (str(newest), 1)


def test_without_a_log_and_without_a_stall_there_is_nothing_to_do(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["diagnose"]) == 2
    assert main(["diagnose", "--bundle", str(written(tmp_path / "bundle", 8))]) == 2
    assert capsys.readouterr().err.count("no log was named") == 2


FILES = st.sampled_from(
    [
        "index.json",
        "verdict.json",
        "states.json",
        "stacks/7.json",
        "stacks/8.json",
        "log-tail.txt",
        "afterwards.jsonl",
    ]
)
HOSTILE = st.one_of(
    st.binary(max_size=200),
    st.recursive(
        st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=20),
        lambda inner: (
            st.lists(inner, max_size=4)
            | st.dictionaries(
                st.sampled_from(
                    ["stall_class", "ranks", "states", "threads", "frames", "missing", "x"]
                ),
                inner,
                max_size=4,
            )
        ),
        max_leaves=20,
    ).map(lambda value: json.dumps(value).encode()),
    st.sampled_from([b"[" * 100_000, b'{"a":' * 50_000, b'{"missing": {"\x1b[2J": "\x1b[31m"}}']),
)


@settings(max_examples=60, suppress_health_check=list(HealthCheck), deadline=None)
@given(st.dictionaries(FILES, HOSTILE, min_size=1, max_size=6))
def test_a_hostile_bundle_is_an_error_or_is_read_and_never_a_traceback(
    tmp_path_factory: pytest.TempPathFactory,
    capsys: pytest.CaptureFixture[str],
    files: dict[str, bytes],
) -> None:
    made = stalled(tmp_path_factory.mktemp("hostile"), **files)
    for arguments in ([], ["--json"], [HUNG]):
        assert main(["diagnose", *arguments, "--bundle", str(made)]) in (0, 1, 2)
        captured = capsys.readouterr()
        assert "Traceback" not in captured.err
        if "--json" not in arguments:
            assert "\x1b" not in captured.out


def test_links_in_a_bundle_are_not_followed(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    made = stalled(tmp_path)
    secret = tmp_path / "secret.json"
    secret.write_bytes(encode({"stall_class": "device", "sentence": "what is not to be shown"}))
    (made / "verdict.json").unlink()
    (made / "verdict.json").symlink_to(secret)
    assert main(["diagnose", "--bundle", str(made)]) == 1
    assert "what is not to be shown" not in capsys.readouterr().out
