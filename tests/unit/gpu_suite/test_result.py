"""Results as a file and as a table."""

from __future__ import annotations

from pathlib import Path

import msgspec
import pytest

from tests.gpu.suite import result, table
from tests.gpu.suite.lines import Claim, Figure, NotRun, Spread
from tests.gpu.suite.machine import Machine
from tests.gpu.suite.result import Result, ResultError, StageResult, added, file_stem

MACHINE = Machine(gpu="NVIDIA H200", driver="580.1", torch="2.11.0", nccl="2.28.9", vllm="0.20.1")
RATIO = Spread(10, 1.25, 1.0, 1.5)
FIGURE = Figure("enforce, 100 nodes", "µs", Spread(100, 2.5, 2.0, 3.0, 9.0, 1.0), RATIO, "bare")
STAGES = (
    StageResult("1:a", "one", "passed", seconds=2.0, figures=(FIGURE,)),
    StageResult("2:b", "two", "timed out", "it ran for more than 9 s", garbled=2, left_behind=1),
    StageResult("3:c", "three", "not run", "no CUDA device"),
    StageResult(
        "4:d",
        "four",
        "passed",
        claims=(Claim("it holds", True), Claim("it broke", False, "bad"), Claim("who knows", None)),
        not_run=(NotRun("threads", "no NCCL"),),
    ),
)
RESULT = Result(MACHINE, "2026-11-21T20:00:00Z", STAGES)


def test_a_file_holds_what_was_written(tmp_path: Path) -> None:
    path = tmp_path / "folder" / "a.json"
    result.write(RESULT, path)
    assert result.read(path) == RESULT
    assert list(path.parent.iterdir()) == [path]


@pytest.mark.parametrize(
    "content",
    [
        b"",
        b"{}",
        b"[" * 100_000,
        b"\xff\xfe",
        msgspec.json.encode(msgspec.structs.replace(RESULT, format=2)),
        msgspec.json.encode(RESULT)[:-20],
    ],
)
def test_what_is_no_file_of_results_is_an_error(tmp_path: Path, content: bytes) -> None:
    path = tmp_path / "a.json"
    path.write_bytes(content)
    with pytest.raises(ResultError):
        result.read(path)
    with pytest.raises(ResultError, match="cannot read"):
        result.read(tmp_path / "none")


def test_a_later_run_is_added_and_what_it_did_not_get_to_is_kept() -> None:
    later = Result(
        msgspec.structs.replace(MACHINE, hostname="another"),
        "later",
        (
            StageResult("1:a", "one", "not run", "no time"),
            StageResult("2:b", "two", "passed"),
            StageResult("3:c", "three", "not run", "still none"),
            StageResult("5:e", "five", "passed"),
        ),
    )
    both = added(RESULT, later)
    assert [(s.title, s.status, s.why) for s in both.stages] == [
        ("1:a", "passed", ""),
        ("2:b", "passed", ""),
        ("3:c", "not run", "no CUDA device"),
        ("4:d", "passed", ""),
        ("5:e", "passed", ""),
    ]
    with pytest.raises(ResultError, match="different machines"):
        added(RESULT, Result(Machine(gpu="NVIDIA H100"), "later", ()))


def test_the_table_has_versions_spreads_and_what_was_not_run() -> None:
    text = table.markdown(RESULT)
    for row in (
        "| GPU | NVIDIA H200 |",
        "| NCCL of torch | 2.28.9 |",
        "| vLLM | 0.20.1 |",
        "| 2:b | two | **timed out** | 0 | it ran for more than 9 s; 2 lines could not be read; "
        "1 processes it left behind were killed |",
        "| 4:d | it broke | **no** | bad |",
        "| 4:d | who knows | told |  |",
        "| 1:a | enforce, 100 nodes | µs | 100 | 2.5 | 2 to 3 | 9 | 1.250 (1.000 to 1.500) "
        "| bare |",
        "| 3:c | all of it | no CUDA device |",
        "| 4:d | threads | no NCCL |",
    ):
        assert row in text.splitlines(), row


def test_nothing_that_a_stage_says_leaves_its_cell() -> None:
    evil = "a | b\n| forged | row |\r\n# heading <script> `x` [l](u) \x1b[31m\u2028\u202eend"
    stage = StageResult("1:a", evil, "passed", claims=(Claim(evil, True, evil),))
    plain = Result(MACHINE, "", (StageResult("1:a", "x", "passed", claims=(Claim("x", True),)),))
    text, expected = table.markdown(Result(MACHINE, "", (stage,))), table.markdown(plain)
    assert len(text.splitlines()) == len(expected.splitlines())
    assert "<script>" not in text.replace("\\<", "")
    assert not set(text) & set("\x1b\u2028\u202e\r")
    (row,) = (line for line in text.splitlines() if line.startswith("| 1:a") and "yes" in line)
    assert row.replace("\\|", "").count("|") == 5


def test_a_failed_stage_or_a_broken_claim_makes_a_run_wrong() -> None:
    assert [stage.wrong for stage in STAGES] == [False, True, False, True]
    assert RESULT.wrong
    assert not Result(MACHINE, "", STAGES[::2]).wrong


def test_files_are_named_for_the_day_and_the_device() -> None:
    assert file_stem(MACHINE, "2026-11-21") == "gpu-2026-11-21-nvidia-h200"
    assert file_stem(Machine(gpu="../../x y"), "d") == "gpu-d-x-y"
    assert file_stem(Machine(), "d") == "gpu-d-no-gpu"
