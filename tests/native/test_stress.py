"""The native table against a naive scan, with the address and undefined-behaviour sanitizers."""

from __future__ import annotations

import re
import subprocess
from pathlib import Path

import pytest

from tests.native.cmake_target import NativeBuildError, build

ROUNDS = 200
RUN_TIMEOUT = 120


@pytest.fixture(scope="module")
def stress() -> Path:
    try:
        return build("graphguard_stress", "GRAPHGUARD_STRESS", "stress")
    except NativeBuildError as error:
        pytest.fail(f"the stress binary cannot be built: {error}", pytrace=False)


def run(binary: Path, *arguments: object) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [str(binary), *map(str, arguments)],
        capture_output=True,
        text=True,
        timeout=RUN_TIMEOUT,
        check=False,
    )


@pytest.mark.parametrize("seed", [1, 2, 3, 20_26, 2**63])
def test_the_table_agrees_with_a_naive_scan_and_allocates_nothing(stress: Path, seed: int) -> None:
    done = run(stress, seed, ROUNDS)
    assert done.returncode == 0, done.stdout + done.stderr
    line = done.stdout.strip()
    counts = {name: int(value) for name, value in re.findall(r"(\w+)=(\d+)", line)}
    assert line.startswith("ok ")
    assert counts["seed"] == seed
    assert counts["tables"] == ROUNDS
    assert counts["checks"] >= 100 * ROUNDS
    assert counts["concurrent_checks"] == 4 * counts["checks"]
    assert min(counts["graphs"], counts["graph_checks"], counts["input_checks"]) > ROUNDS
    assert counts["reasons"] == 14
    assert counts["refusals"] > 0
    assert counts["allocations"] == counts["failures"] == 0


def test_the_same_seed_asks_the_same_questions(stress: Path) -> None:
    first, again, other = (run(stress, seed, 5).stdout for seed in (7, 7, 8))
    assert first == again
    assert first.split()[2:] != other.split()[2:]


def test_without_a_seed_it_says_how_to_call_it(stress: Path) -> None:
    done = run(stress)
    assert done.returncode == 1
    assert "SEED ROUNDS" in done.stderr
