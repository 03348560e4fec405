"""The walk of random graphs, with the address and undefined-behaviour sanitizers."""

from __future__ import annotations

import re
import subprocess
from pathlib import Path

import pytest

from tests.native.cmake_target import NativeBuildError, build

ROUNDS = 30
RUN_TIMEOUT = 120


@pytest.fixture(scope="module")
def stress() -> Path:
    try:
        return build("graphguard_graph_walk_stress", "GRAPHGUARD_STRESS", "stress")
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


@pytest.mark.parametrize("seed", [1, 1_000, 2**40])
def test_every_node_is_found_in_any_order_and_what_is_refused_is_counted(
    stress: Path, seed: int
) -> None:
    done = run(stress, seed, ROUNDS)
    assert done.returncode == 0, done.stdout + done.stderr
    assert done.stdout.startswith("ok ")
    counts = {name: int(value) for name, value in re.findall(r"(\w+)=(\d+)", done.stdout)}
    assert counts["graphs"] == ROUNDS
    assert counts["nodes"] > 100 * ROUNDS
    assert counts["refusals"] > 10 * ROUNDS
    assert counts["unreadable"] > ROUNDS
    assert counts["failures"] == 0


def test_without_a_seed_it_says_how_to_call_it(stress: Path) -> None:
    done = run(stress)
    assert done.returncode == 1
    assert "SEED ROUNDS" in done.stderr
