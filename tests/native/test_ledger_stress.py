"""The ledger with many ranks at once: no false alarm, no broken claim, no data race."""

from __future__ import annotations

import re
import subprocess
from pathlib import Path

import pytest

from tests.native.cmake_target import NativeBuildError, build

RUN_TIMEOUT = 240
SOAK_STEPS = 10_000_000


def built(target: str, option: str, folder: str) -> Path:
    try:
        return build(target, option, folder)
    except NativeBuildError as error:
        pytest.fail(f"{target} cannot be built: {error}", pytrace=False)


@pytest.fixture(scope="module")
def stress() -> Path:
    return built("graphguard_ledger_stress", "GRAPHGUARD_STRESS", "stress")


@pytest.fixture(scope="module")
def thread_stress() -> Path:
    return built("graphguard_ledger_thread_stress", "GRAPHGUARD_TSAN", "thread-stress")


def counts(binary: Path, *arguments: object) -> dict[str, int]:
    done = subprocess.run(
        [str(binary), *map(str, arguments)],
        capture_output=True,
        text=True,
        timeout=RUN_TIMEOUT,
        check=False,
    )
    assert done.returncode == 0, done.stdout + done.stderr
    assert done.stdout.startswith("ok ")
    return {name: int(value) for name, value in re.findall(r"(\w+)=(\d+)", done.stdout)}


@pytest.mark.parametrize("way", ["observe", "enforce"])
def test_eight_processes_that_do_the_same_raise_no_alarm_in_ten_million_steps(
    stress: Path, way: str
) -> None:
    seen = counts(stress, "soak", way, "processes", 8, SOAK_STEPS, 1)
    assert seen["rank_steps"] == 8 * SOAK_STEPS
    assert seen["longest_lead"] > 500
    assert seen["notices"] > 50
    assert seen["alarms"] == 0


def test_a_vote_of_eight_processes_that_do_the_same_raises_no_alarm(stress: Path) -> None:
    seen = counts(stress, "soak", "vote", "processes", 8, 100_000, 1)
    assert seen["rank_steps"] == 800_000
    assert seen["alarms"] == 0


# With odd seeds ranks come to each step together, with even ones they run ahead.
@pytest.mark.parametrize("seed", [1, 2])
@pytest.mark.parametrize("ranks", [2, 3, 8])
@pytest.mark.parametrize("way", ["observe", "enforce", "vote"])
def test_ranks_that_choose_at_random_keep_the_claims_of_the_protocol(
    stress: Path, way: str, ranks: int, seed: int
) -> None:
    seen = counts(stress, "race", way, "processes", ranks, 50_000, seed)
    assert seen["rank_steps"] >= 20_000
    assert seen["differences"] > 1_000
    assert seen["alarms"] == 0


@pytest.mark.parametrize("what", ["soak", "race"])
@pytest.mark.parametrize("way", ["observe", "enforce", "vote"])
def test_threads_on_one_ledger_do_not_race(thread_stress: Path, way: str, what: str) -> None:
    seen = counts(thread_stress, what, way, "threads", 4, 10_000, 1)
    assert seen["rank_steps"] > 1_000
    assert seen["alarms"] == 0
