"""Breadcrumbs in random graphs, and with several threads, under the sanitizers."""

from __future__ import annotations

import re
import subprocess
from pathlib import Path

import pytest

from tests.native.cmake_target import NativeBuildError, build

ROUNDS = 60
RUN_TIMEOUT = 120


def built(target: str, option: str, folder: str) -> Path:
    try:
        return build(target, option, folder)
    except NativeBuildError as error:
        pytest.fail(f"{target} cannot be built: {error}", pytrace=False)


@pytest.fixture(scope="module")
def address() -> Path:
    return built("graphguard_breadcrumbs_stress", "GRAPHGUARD_STRESS", "stress")


@pytest.fixture(scope="module")
def threads() -> Path:
    return built("graphguard_breadcrumb_threads_stress", "GRAPHGUARD_TSAN", "thread-stress")


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
    assert done.stdout.startswith("ok ")
    counts = {name: int(value) for name, value in re.findall(r"(\w+)=(\d+)", done.stdout)}
    assert counts["failures"] == 0
    return counts


@pytest.mark.parametrize("seed", [1, 2**40])
def test_marks_are_where_their_model_is_whatever_the_driver_refuses(
    address: Path, seed: int
) -> None:
    counts = counts_of(run(address, seed, ROUNDS))
    assert counts["marks"] > counts["graphs"] > ROUNDS
    assert counts["refusals"] > ROUNDS
    assert counts["readings"] == counts["graphs"]


def test_readers_see_what_can_be_while_threads_launch_and_graphs_come_and_go(
    threads: Path,
) -> None:
    counts_of(run(threads, 7, 2))


def test_without_a_seed_it_says_how_to_call_it(address: Path) -> None:
    done = run(address)
    assert done.returncode == 1
    assert "SEED ROUNDS" in done.stderr
