"""What agreeing on a step costs: the ledger, the vote, the black box, and all of it at once."""

from __future__ import annotations

import json
import subprocess
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import torch
from pytest_benchmark.fixture import BenchmarkFixture

from benchmarks.agreeing import EXACT, AgreedGuards, Nothing, spread, vote_and_all_reduce
from benchmarks.pedantic import pedantic
from tests.native.cmake_target import build

RUN_TIMEOUT = 120
ROUNDS = 20_000


@pytest.fixture(autouse=True)
def _no_gradients() -> Iterator[None]:
    with torch.no_grad():
        yield


def native(benchmark: BenchmarkFixture, target: str) -> dict[str, Any]:
    """Run a native benchmark and keep the figures that it prints."""
    binary = build(target, "GRAPHGUARD_BENCHMARK", "bench")

    def run() -> dict[str, Any]:
        done = subprocess.run(
            [str(binary)], capture_output=True, text=True, timeout=RUN_TIMEOUT, check=True
        )
        figures: dict[str, Any] = json.loads(done.stdout)
        return figures

    figures: dict[str, Any] = pedantic(benchmark)(run, rounds=1)
    benchmark.extra_info["native"] = figures
    return figures


@pytest.mark.benchmark(group="the ledger in C++")
def test_ledger_in_cpp(benchmark: BenchmarkFixture) -> None:
    figures = native(benchmark, "graphguard_ledger_bench")
    assert [result["peers"] for result in figures["results"]] == [1, 1, 3, 3, 7, 7]


@pytest.mark.benchmark(group="a record of the black box in C++")
def test_record_in_cpp(benchmark: BenchmarkFixture) -> None:
    assert native(benchmark, "graphguard_ring_bench")["results"]


@pytest.mark.benchmark(group="agreement of processes, interleaved")
@pytest.mark.parametrize("ranks", [2, 8])
def test_vote(benchmark: BenchmarkFixture, ranks: int, tmp_path: Path) -> None:
    medians = pedantic(benchmark)(vote_and_all_reduce, args=(ranks, tmp_path), rounds=1)
    benchmark.extra_info["median_seconds"] = medians


@pytest.mark.benchmark(group="guarded replay of nothing with everything on")
@pytest.mark.parametrize("mode", ["observe", "enforce"])
@pytest.mark.parametrize("peers", [1, 3, 7])
@pytest.mark.usefixtures("one_rank")
def test_agreed_replay(
    benchmark: BenchmarkFixture,
    mode: str,
    peers: int,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setenv("GRAPHGUARD_DIR", str(tmp_path))
    guards = AgreedGuards(peers + 1, mode)
    nothing = Nothing()
    figures: dict[str, float] = {}

    def step() -> None:
        guards.guards[0](EXACT)

    def measure() -> None:
        spread(step, guards.step_of_others, ROUNDS // 10)
        bare = spread(nothing.replay, lambda: None, ROUNDS)
        guarded = spread(step, guards.step_of_others, ROUNDS)
        for name, times in (("bare", bare), ("guarded", guarded)):
            figures[name] = times[len(times) // 2]
            figures[f"{name}_p99"] = times[len(times) * 99 // 100]

    pedantic(benchmark)(measure, rounds=1)
    assert str(guards.guards[0].last_verdict) == "replay (exact)"
    benchmark.extra_info["seconds"] = figures
