"""A call of NCCL through the interposer. The binary measures itself; see ``extra_info``."""

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
    return build("graphguard_interposer_bench", "GRAPHGUARD_NCCL_STUBS", "nccl-stubs")


@pytest.mark.benchmark(group="a call of NCCL through the interposer")
@pytest.mark.parametrize("driver", ["without a driver", "with a driver"])
def test_call_through_the_interposer(
    benchmark: BenchmarkFixture, binary: Path, driver: str
) -> None:
    place = binary.parent
    command = [
        binary,
        place / "interposer" / "libnccl.so.2",
        place / "libgraphguard_silent_nccl.so",
    ]
    if driver == "with a driver":
        command.append(place / "libgraphguard_capturing_driver.so")

    def run() -> dict[str, float]:
        done = subprocess.run(
            list(map(str, command)),
            capture_output=True,
            text=True,
            timeout=RUN_TIMEOUT,
            check=True,
        )
        figures: dict[str, Any] = json.loads(done.stdout)
        return figures

    figures = pedantic(benchmark)(run, rounds=3, warmup_rounds=1)
    assert figures.keys() == {"direct", "idle", "recorded", "passed_directly", "passed_on"}
    benchmark.extra_info["ns_per_call"] = figures
    benchmark.extra_info["beyond_direct_ns"] = {
        "idle": figures["idle"] - figures["direct"],
        "recorded": figures["recorded"] - figures["direct"],
        "passed_on": figures["passed_on"] - figures["passed_directly"],
    }
