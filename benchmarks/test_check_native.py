"""The check in C++. The binary measures itself; its figures are kept in ``extra_info``."""

from __future__ import annotations

import json
import subprocess
from pathlib import Path
from typing import Any

import pytest
from pytest_benchmark.fixture import BenchmarkFixture

from benchmarks.pedantic import pedantic
from tests.native.cmake_target import build

RUN_TIMEOUT = 60


@pytest.fixture(scope="module")
def binary() -> Path:
    return build("graphguard_bench", "GRAPHGUARD_BENCHMARK", "bench")


@pytest.mark.benchmark(group="check in C++")
def test_check_in_cpp(benchmark: BenchmarkFixture, binary: Path) -> None:
    def run() -> dict[str, Any]:
        done = subprocess.run(
            [str(binary)], capture_output=True, text=True, timeout=RUN_TIMEOUT, check=True
        )
        figures: dict[str, Any] = json.loads(done.stdout)
        return figures

    figures = pedantic(benchmark)(run, rounds=3, warmup_rounds=1)
    assert [result["signatures"] for result in figures["results"]] == [10, 100, 10_000]
    benchmark.extra_info["native"] = figures
