"""Measuring candidates in turn, so that a machine that slows down slows them all."""

from __future__ import annotations

import statistics
import time
from collections.abc import Callable, Mapping

from pytest_benchmark.fixture import BenchmarkFixture

from benchmarks.pedantic import pedantic


def compare(
    benchmark: BenchmarkFixture, candidates: Mapping[str, Callable[[], object]], rounds: int
) -> None:
    """Call each candidate once a round, and keep the median of each in ``extra_info``."""
    times: dict[str, list[float]] = {name: [] for name in candidates}

    def turn() -> None:
        for name, call in candidates.items():
            began = time.perf_counter()
            call()
            times[name].append(time.perf_counter() - began)

    pedantic(benchmark)(turn, rounds=rounds, warmup_rounds=5)
    benchmark.extra_info["median_seconds"] = {
        name: statistics.median(taken) for name, taken in times.items()
    }
