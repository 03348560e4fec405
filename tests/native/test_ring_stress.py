"""The black box under ThreadSanitizer, killed in the middle of a record, and fed with bad files."""

from __future__ import annotations

import re
import subprocess
from pathlib import Path

import pytest

from tests.native.cmake_target import REPOSITORY, NativeBuildError, build

RUN_TIMEOUT = 120
CORPUS = REPOSITORY / "tests" / "data" / "ring-corpus"


def built(target: str, option: str, folder: str) -> Path:
    try:
        return build(target, option, folder)
    except NativeBuildError as error:
        pytest.fail(f"{target} cannot be built: {error}", pytrace=False)


@pytest.fixture(scope="module")
def stress() -> Path:
    return built("graphguard_ring_stress", "GRAPHGUARD_TSAN", "thread-stress")


@pytest.fixture(scope="module")
def killer() -> Path:
    return built("graphguard_ring_kill", "GRAPHGUARD_STRESS", "stress")


@pytest.fixture(scope="module")
def replay() -> Path:
    return built("graphguard_ring_replay", "GRAPHGUARD_STRESS", "stress")


def run(binary: Path, *arguments: object) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [str(binary), *map(str, arguments)],
        capture_output=True,
        text=True,
        timeout=RUN_TIMEOUT,
        check=False,
    )


def counts_of(done: subprocess.CompletedProcess[str]) -> dict[str, int]:
    assert done.returncode == 0, done.stdout + done.stderr
    line = done.stdout.strip()
    assert line.startswith("ok ")
    return {name: int(value) for name, value in re.findall(r"(\w+)=(\d+)", line)}


@pytest.mark.parametrize("writers", [1, 4])
def test_threads_write_while_another_reads_and_no_write_allocates(
    stress: Path, writers: int
) -> None:
    counts = counts_of(run(stress, writers, 20_000 // writers, 5))
    assert counts["rounds"] == 10
    assert counts["written"] >= 10 * 20_000
    assert min(counts["readings"], counts["records_read"], counts["names_read"]) > 0
    assert counts["allocations"] == counts["failures"] == 0


def test_every_record_that_was_committed_outlives_a_kill(killer: Path, tmp_path: Path) -> None:
    counts = counts_of(run(killer, 3, 1_000, tmp_path))
    assert counts["rounds"] == 1_000
    # The rest is killed before its first record.
    assert counts["opened"] > 100
    assert counts["checked"] > 1_000
    assert counts["lost"] == counts["wrong"] == 0
    assert counts["damaged"] <= counts["rounds"]
    assert list(tmp_path.iterdir()) == []


def test_writing_makes_no_system_call(killer: Path, tmp_path: Path) -> None:
    written = counts_of(run(killer, 1, 0, tmp_path))["without_system_calls"]
    if written == 0:
        pytest.skip("this kernel has no seccomp, which would end who makes a system call")
    assert written == 5_000


def test_what_the_fuzzer_found_is_read_without_a_fault(replay: Path) -> None:
    inputs = sorted(CORPUS.iterdir())
    assert len(inputs) > 50
    assert counts_of(run(replay, *inputs)) == {"files": len(inputs)}


def test_the_replay_says_which_file_it_cannot_read(replay: Path, tmp_path: Path) -> None:
    done = run(replay, tmp_path / "missing")
    assert done.returncode == 1
    assert f"cannot be read: {tmp_path / 'missing'}" in done.stderr


@pytest.mark.parametrize(
    ("binary", "usage"),
    [("stress", "WRITERS RECORDS ROUNDS"), ("killer", "SEED ROUNDS FOLDER")],
)
def test_without_arguments_a_binary_says_how_to_call_it(
    binary: str, usage: str, request: pytest.FixtureRequest
) -> None:
    done = run(request.getfixturevalue(binary))
    assert done.returncode == 1
    assert usage in done.stderr
