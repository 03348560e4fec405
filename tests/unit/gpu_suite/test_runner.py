"""The runner with real processes that succeed, fail, hang, babble and leave others behind."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path

import msgspec
import pytest

from tests.gpu.suite import result
from tests.gpu.suite.__main__ import main
from tests.gpu.suite.result import StageResult
from tests.gpu.suite.runner import RESERVE_SECONDS, Budget
from tests.gpu.suite.stage import Stage, chosen
from tests.native.cmake_target import REPOSITORY
from tests.unit.gpu_suite.fake_stages import stage

RUN_SECONDS = 100


class Suite:
    """The command line with a catalogue of a test's own."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.out = folder / "out"

    def command(self, stages: Sequence[Stage], *options: str) -> list[str]:
        catalogue = self.folder / "catalogue.json"
        catalogue.write_bytes(msgspec.json.encode(list(stages)))
        own = ["--catalogue", str(catalogue), "--out", str(self.out), *options]
        return [sys.executable, "-m", "tests.gpu.suite", *own]

    def run(self, stages: Sequence[Stage], *options: str) -> subprocess.CompletedProcess[str]:
        return subprocess.run(
            self.command(stages, *options),
            cwd=REPOSITORY,
            capture_output=True,
            text=True,
            timeout=RUN_SECONDS,
            check=False,
        )

    def stages(self) -> dict[str, StageResult]:
        (path,) = self.out.glob("*.json")
        return {s.title.partition(":")[2]: s for s in result.read(path).stages}


@pytest.fixture
def suite(tmp_path: Path) -> Suite:
    return Suite(tmp_path)


def alive(pid_file: Path) -> bool:
    pid = int(pid_file.read_text())
    try:
        return "State:\tZ" not in Path(f"/proc/{pid}/status").read_text()
    except OSError:
        return False


def test_every_way_to_end_is_told_and_nothing_runs_on(suite: Suite, tmp_path: Path) -> None:
    own = str(tmp_path)
    done = suite.run(
        [
            stage("fails"),
            stage("dies"),
            stage("hangs", seconds=2.0, folder=own),
            stage("writes-garbage"),
            stage("tells-nothing"),
            stage("leaves-children", folder=own),
            stage("cannot-run"),
            stage("succeeds"),
        ]
    )
    assert done.returncode == 1, done.stderr
    found = suite.stages()
    assert {name: one.status for name, one in found.items()} == {
        "fails": "failed",
        "dies": "failed",
        "hangs": "timed out",
        "writes-garbage": "passed",
        "tells-nothing": "failed",
        "leaves-children": "passed",
        "cannot-run": "not run",
        "succeeds": "passed",
    }
    # What a stage told before it failed is kept.
    assert len(found["fails"].figures) == len(found["succeeds"].figures) == 1
    assert found["fails"].why == "it ended with 3"
    assert found["dies"].why == f"it ended with {-signal.SIGABRT}"
    assert [claim.what for claim in found["hangs"].claims] == ["it begins"]
    assert found["hangs"].why == "it ran for more than 2 s"
    assert found["writes-garbage"].garbled == 2
    assert [claim.what for claim in found["writes-garbage"].claims] == ["it says something", "b"]
    assert found["tells-nothing"].why == "it ended with 0 and told nothing"
    assert found["cannot-run"].why == "no such device"
    assert found["leaves-children"].left_behind == 2
    assert not any(alive(tmp_path / n) for n in ("hangs", "same-group", "own-session"))


@pytest.mark.parametrize(("name", "code"), [("succeeds", 0), ("breaks-its-word", 1)])
def test_the_exit_code_says_whether_all_claims_held(suite: Suite, name: str, code: int) -> None:
    done = suite.run([stage(name)])
    assert (done.returncode, suite.stages()[name].status) == (code, "passed")
    assert "| it works |" in done.stdout


def test_what_no_longer_fits_the_budget_is_not_started_and_says_so(
    suite: Suite, tmp_path: Path
) -> None:
    minutes = (RESERVE_SECONDS + 6.0) / 60
    hanging = stage("hangs", folder=str(tmp_path))
    late = msgspec.structs.replace(stage("succeeds"), least=15.0)
    done = suite.run([hanging, late], "--minutes", f"{minutes:.3f}")
    assert done.returncode == 1, done.stderr
    found = suite.stages()
    # Its own limit is 20 s, and the budget cuts that short.
    assert found["hangs"].status == "timed out"
    assert found["hangs"].seconds < 12
    assert found["succeeds"].status == "not run"
    assert "15 s of the time given" in found["succeeds"].why


def test_a_stage_that_floods_its_log_is_stopped(tmp_path: Path) -> None:
    from tests.gpu.suite import bounded

    own = stage("floods")
    ended = bounded.run(own.full_command(""), tmp_path / "log", 30.0, max_output=1_000_000)
    assert ended.why_killed == "it wrote more than 1000000 bytes"


def test_an_interrupted_run_keeps_its_results_and_ends_its_stage(
    suite: Suite, tmp_path: Path
) -> None:
    stages = [stage("succeeds"), stage("hangs", folder=str(tmp_path))]
    with subprocess.Popen(suite.command(stages), cwd=REPOSITORY) as running:
        for _ in _until(lambda: _has_written(tmp_path / "hangs")):
            assert running.poll() is None
        running.send_signal(signal.SIGTERM)
        assert running.wait(RUN_SECONDS) == 1
    assert suite.stages()["succeeds"].status == "passed"
    assert not alive(tmp_path / "hangs")


def _has_written(path: Path) -> bool:
    return path.exists() and path.stat().st_size > 0


def _until(condition: Callable[[], bool], seconds: float = 60.0) -> Iterator[None]:
    deadline = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < deadline
        time.sleep(0.05)
        yield


def test_stages_are_chosen_by_number_or_name_in_their_own_order() -> None:
    stages = [stage("a", number=1), stage("b", number=2), stage("c", number=2)]
    assert [s.name for s in chosen(stages, "2,1")] == ["a", "b", "c"]
    assert [s.name for s in chosen(stages, " 2:c ")] == ["c"]
    assert chosen(stages, "") == stages
    for wrong in ("3", "2:x", "x", "2:c;rm"):
        with pytest.raises(ValueError, match="names no stage"):
            chosen(stages, wrong)


def test_a_budget_gives_each_stage_no_more_than_is_left() -> None:
    clock = [0.0]
    budget = Budget(60.0 + RESERVE_SECONDS, lambda: clock[0])
    long = msgspec.structs.replace(stage("a", seconds=40.0), least=15.0)
    assert budget.for_stage(long) == 40.0
    clock[0] = 35.0
    assert budget.for_stage(long) == 25.0
    clock[0] = 50.0
    assert budget.for_stage(long) == 0.0
    assert Budget(None).for_stage(long) == 40.0


@pytest.mark.parametrize(
    "options",
    [
        ["--stages", "99"],
        ["--stages", "x"],
        ["--onto", "no-such-file.json"],
        ["--catalogue", "no-such-file.json"],
    ],
)
def test_a_wrong_command_is_an_error_and_runs_nothing(
    options: list[str], capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(options) == 2
    assert capsys.readouterr().err.startswith("error: ")


@pytest.mark.parametrize("options", [["--minutes", "0"], ["--vllm", "0.20.1"], ["--nccl", "none"]])
def test_a_wrong_option_is_an_error(options: list[str]) -> None:
    with pytest.raises(SystemExit) as ended:
        main(options)
    assert ended.value.code == 2


def test_without_a_device_nothing_is_written(tmp_path: Path) -> None:
    catalogue = tmp_path / "catalogue.json"
    needy = msgspec.structs.replace(stage("succeeds"), needs_device=True)
    catalogue.write_bytes(msgspec.json.encode([needy]))
    before = set((REPOSITORY / "benchmarks").rglob("gpu-*"))
    done = subprocess.run(
        [sys.executable, "-m", "tests.gpu.suite", "--catalogue", str(catalogue)],
        cwd=REPOSITORY,
        env={**os.environ, "CUDA_VISIBLE_DEVICES": ""},
        capture_output=True,
        text=True,
        timeout=RUN_SECONDS,
        check=False,
    )
    assert done.returncode == 0
    assert "without a device there are no results" in done.stdout
    assert "not run" in done.stdout
    assert set((REPOSITORY / "benchmarks").rglob("gpu-*")) == before
