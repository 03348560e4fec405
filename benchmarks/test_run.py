"""What a Python process of ``graphguard run`` takes longer to start, beside one without it."""

from __future__ import annotations

import os
import statistics
import subprocess
import sys
import time
from pathlib import Path

import pytest
from pytest_benchmark.fixture import BenchmarkFixture

from benchmarks.pedantic import pedantic
from graphguard.running import processes
from graphguard.running.place import prepare
from graphguard.running.variables import variables

ROUNDS = 25


def milliseconds(code: str, environment: dict[str, str]) -> float:
    start = time.perf_counter()
    subprocess.run([sys.executable, "-c", code], check=True, env=environment)
    return (time.perf_counter() - start) * 1e3


@pytest.mark.benchmark(group="start of a process")
def test_start_of_a_process(benchmark: BenchmarkFixture, tmp_path: Path) -> None:
    directory = prepare(tmp_path / "run")
    bare = dict(os.environ)
    run = variables(bare, output=directory, processes=directory / processes.DIRECTORY)
    programs = {
        "python": ("pass", bare),
        "import graphguard": ("import graphguard", bare),
        "graphguard run": ("pass", run),
    }
    times: dict[str, list[float]] = {name: [] for name in programs}

    def turn() -> None:
        for name, program in programs.items():
            times[name].append(milliseconds(*program))

    pedantic(benchmark)(turn, rounds=ROUNDS, warmup_rounds=2)
    medians = {name: statistics.median(taken) for name, taken in times.items()}
    benchmark.extra_info["median_ms"] = medians
    benchmark.extra_info["beyond_python_ms"] = {
        name: median - medians["python"] for name, median in medians.items()
    }
