"""The nodes of a graph of 3,000, asked of a stand-in for the CUDA driver.

What the real driver takes to answer is in no figure here; tests/gpu measures that.
"""

from __future__ import annotations

import json
import subprocess
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from pytest_benchmark.fixture import BenchmarkFixture

from benchmarks.pedantic import pedantic
from graphguard.graphs.contents import contents_of_handle
from tests.native.cmake_target import build
from tests.native.fake_driver import FakeDriver

RUN_TIMEOUT = 60
NODES = 3000

SHAPES = {"60 different": (60, 1), "300 different": (60, 5 * 60), "3,000 different": (3000, 1)}
"""Kernels, and nodes after which the grid is that of the first node again."""


@pytest.fixture(scope="module")
def binary() -> Path:
    return build("graphguard_graph_walk_bench", "GRAPHGUARD_BENCHMARK", "bench")


@pytest.fixture(scope="module")
def fake() -> FakeDriver:
    return FakeDriver(build("graphguard_fake_driver", "GRAPHGUARD_STRESS", "stress"))


@pytest.fixture(params=SHAPES)
def asked(request: pytest.FixtureRequest, fake: FakeDriver) -> tuple[int, Any]:
    """A graph, and the driver that knows it."""
    num_functions, period = SHAPES[request.param]
    fake.reset()
    driver = fake.load()
    functions = [
        fake.function(f"_ZN5model6kernelILi{i}EEEvPvS1_", 8, 8, 4) for i in range(num_functions)
    ]
    graph = fake.graph()
    for i in range(NODES):
        fake.add_kernel(
            graph, functions[i % num_functions], (1 + i % period // 60, 1, 1), (128, 1, 1)
        )
    return graph, driver


@pytest.mark.benchmark(group="nodes of a graph of 3,000")
def test_counted_and_digested(benchmark: BenchmarkFixture, asked: tuple[int, Any]) -> None:
    graph, driver = asked
    found = benchmark(contents_of_handle, graph, driver)
    assert sum(node.count for node in found.nodes) == NODES


@pytest.mark.benchmark(group="nodes of a graph of 3,000")
def test_baseline_walk_alone(benchmark: BenchmarkFixture, asked: tuple[int, Any]) -> None:
    graph, driver = asked
    walk: Callable[[int], tuple[list[Any], int, str]] = driver.walk_graph
    nodes, unreadable, error = benchmark(walk, graph)
    assert (sum(node[-1] for node in nodes), unreadable, error) == (NODES, 0, "")


@pytest.mark.benchmark(group="walk in C++")
def test_walk_in_cpp(benchmark: BenchmarkFixture, binary: Path) -> None:
    def run() -> dict[str, Any]:
        done = subprocess.run(
            [str(binary)], capture_output=True, text=True, timeout=RUN_TIMEOUT, check=True
        )
        figures: dict[str, Any] = json.loads(done.stdout)
        return figures

    figures = pedantic(benchmark)(run, rounds=3, warmup_rounds=1)
    assert [result["different"] for result in figures["results"]] == [60, 420, 3000]
    benchmark.extra_info["native"] = figures
