"""What ``import graphguard`` and the command cost beyond starting Python."""

from __future__ import annotations

import importlib.util
import statistics
import subprocess
import sys
import time

import pytest
from pytest_benchmark.fixture import BenchmarkFixture

from benchmarks.pedantic import pedantic

ROUNDS = 25

PROGRAMS = {
    "python": ["-c", "pass"],
    "import graphguard": ["-c", "import graphguard"],
    "graphguard --help": ["-c", "from graphguard.commands import main; main(['--help'])"],
}


def milliseconds(arguments: list[str]) -> float:
    start = time.perf_counter()
    # No timeout here: with one, subprocess polls at 32, 64 and 114 ms and measures its own steps.
    # pytest's own bound ends a run that hangs.
    subprocess.run([sys.executable, *arguments], check=True, stdout=subprocess.DEVNULL)
    return (time.perf_counter() - start) * 1e3


@pytest.mark.benchmark(group="start")
def test_start(benchmark: BenchmarkFixture) -> None:
    programs = dict(PROGRAMS)
    if importlib.util.find_spec("graphguard.commands") is None:
        del programs["graphguard --help"]
    times: dict[str, list[float]] = {name: [] for name in programs}

    def turn() -> None:
        for name, arguments in programs.items():
            times[name].append(milliseconds(arguments))

    pedantic(benchmark)(turn, rounds=ROUNDS, warmup_rounds=2)
    medians = {name: statistics.median(taken) for name, taken in times.items()}
    benchmark.extra_info["median_ms"] = medians
    benchmark.extra_info["beyond_python_ms"] = {
        name: median - medians["python"] for name, median in medians.items()
    }
