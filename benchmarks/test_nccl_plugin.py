"""What the profiler plugin costs per collective. The binary measures itself, in ``extra_info``.

The driver is a stand-in, for there is none here: the question for the id of a stream's capture is
asked, and answered at once.
"""

from __future__ import annotations

import json
import os
import subprocess
from typing import Any

import pytest
from pytest_benchmark.fixture import BenchmarkFixture

from benchmarks.pedantic import pedantic
from tests.native.cmake_target import build

RUN_TIMEOUT = 60


@pytest.mark.benchmark(group="NCCL profiler plugin")
def test_recorded_collective(benchmark: BenchmarkFixture) -> None:
    binary = build("graphguard_nccl_plugin_bench", "GRAPHGUARD_BENCHMARK", "bench")
    driver = binary.with_name("libgraphguard_nccl_bench_driver.so")
    command = [str(binary), str(binary.with_name("libgraphguard_nccl.so"))]

    def run() -> dict[str, Any]:
        done = subprocess.run(
            command,
            env={**os.environ, "GRAPHGUARD_CUDA_DRIVER": str(driver)},
            capture_output=True,
            text=True,
            timeout=RUN_TIMEOUT,
            check=True,
        )
        figures: dict[str, Any] = json.loads(done.stdout)
        return figures

    figures = pedantic(benchmark)(run, rounds=3, warmup_rounds=1)
    assert figures["calls"] == 500
    benchmark.extra_info["native"] = figures
