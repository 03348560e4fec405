"""What a watchdog takes of the processor, and what it adds to a step beside it."""

from __future__ import annotations

import os
import statistics
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
from pytest_benchmark.fixture import BenchmarkFixture

from benchmarks.pedantic import pedantic
from graphguard import _core
from graphguard.blackbox.pulse import ActivityKind
from graphguard.blackbox.writer import BlackBox, open_box
from graphguard.watch.watchdog import TICK_SECONDS

STEPS, ROUNDS = 20_000, 30
SHARE_SECONDS = 10.0


@pytest.fixture
def box(tmp_path: Path) -> Iterator[BlackBox]:
    opened = open_box(tmp_path, 16_384)
    yield opened
    opened.disown()


def watchdog(box: BlackBox) -> _core.Watchdog:
    """A watchdog that finds nothing: what it finds is not to be measured here."""
    directory = str(box.path.parent)
    return _core.Watchdog(box.ring, 3600.0, 3600.0, TICK_SECONDS, ["true"], [], directory, "none")


@pytest.mark.benchmark(group="a step beside the watchdog, interleaved")
def test_a_step_beside_it(benchmark: BenchmarkFixture, box: BlackBox) -> None:
    ring, name = box.ring, box.name("execute_model")
    step = int(ActivityKind.STEP)
    times: dict[str, list[float]] = {"empty": [], "alone": [], "watched": []}

    def empty() -> None:
        noop = _core.noop
        for _ in range(STEPS):
            noop(step, name, 0, 0, 0)
            noop(step, name, 0, 0, 0)

    def steps() -> None:
        begin, end = ring.begin_activity, ring.end_activity
        for number in range(STEPS):
            begin(step, name, number)
            end(step, name)

    def turn() -> None:
        native = watchdog(box)
        for what, call in (("empty", empty), ("alone", steps), ("watched", steps)):
            if what == "watched":
                native.start()
            began = time.perf_counter()
            call()
            times[what].append((time.perf_counter() - began) / STEPS)
        native.stop()

    pedantic(benchmark)(turn, rounds=ROUNDS, warmup_rounds=2)
    benchmark.extra_info["median_seconds"] = {
        what: statistics.median(taken) for what, taken in times.items()
    }


@pytest.mark.benchmark(group="the watchdog's share of a processor")
def test_share(benchmark: BenchmarkFixture, box: BlackBox) -> None:
    """Measured where every lane is taken.

    What threads of the benchmarks before it use is measured first, without a watchdog.
    """
    began_cpu, began = time.process_time(), time.perf_counter()
    time.sleep(SHARE_SECONDS)
    without = (time.process_time() - began_cpu) / (time.perf_counter() - began)
    for number in range(4):
        box.ring.begin_activity(ActivityKind.OTHER, number, 0)
    native = watchdog(box)
    native.start()

    def idle() -> None:
        time.sleep(SHARE_SECONDS)

    began_cpu, began = time.process_time(), time.perf_counter()
    pedantic(benchmark)(idle, rounds=1, warmup_rounds=0)
    share = (time.process_time() - began_cpu) / (time.perf_counter() - began)
    native.stop()
    benchmark.extra_info["share"] = max(0.0, share - without)
    benchmark.extra_info["cores"] = os.cpu_count()
