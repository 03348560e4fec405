"""The check from Python, against an empty call and against what an engine does today.

Every measurement makes ``CALLS`` calls from C (``deque`` over ``repeat``), so that the loop costs
little and the same for all. ``extra_info["ns_per_call"]`` holds the median of one call.
"""

from __future__ import annotations

import time
from collections import deque
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from itertools import repeat, starmap
from typing import Any

import pytest
from pytest_benchmark.fixture import BenchmarkFixture

from benchmarks.pedantic import pedantic
from graphguard import _core
from graphguard.batch import BatchDescriptor
from graphguard.signature import GraphKey, Signature
from graphguard.table import SignatureTable

CALLS = 20_000
ROUNDS = 41
SIGNATURES = [10, 100, 10_000]
PADDED = (0, 15, 2, 30, 0)
EXACT = (0, 16, 2, 32, 0)
MISS = (0, 16, 3, 48, 0)


@dataclass(frozen=True)
class Key:
    """The fields of the key by which vLLM looks a graph up."""

    num_tokens: int
    num_reqs: int | None = None
    uniform: bool = False
    has_lora: bool = False
    num_active_loras: int = 0


READY = Key(32, 16, True)


def table_of(signatures: int) -> SignatureTable:
    """Record signatures over query lengths 1 to 10 and sizes 4, 8, 12 and so on."""
    table = SignatureTable()
    for index in range(signatures):
        batch = BatchDescriptor.of(4 * (index // 10 + 1), index % 10 + 1)
        table.add(Signature(GraphKey("target"), batch))
    return table


def small_table() -> SignatureTable:
    table = SignatureTable()
    for num_reqs in (4, 8, 16, 32):
        table.add(Signature(GraphKey("target"), BatchDescriptor.of(num_reqs, 2)))
    return table


def drain(calls: Iterable[object]) -> None:
    deque(calls, maxlen=0)


def measure(
    benchmark: BenchmarkFixture, call: Callable[..., object], arguments: tuple[object, ...]
) -> None:
    """Measure one call with positional arguments."""

    def setup() -> tuple[tuple[object, ...], dict[str, object]]:
        return (starmap(call, repeat(arguments, CALLS)),), {}

    pedantic(benchmark)(drain, setup=setup, rounds=ROUNDS, warmup_rounds=3)
    record(benchmark)


def record(benchmark: BenchmarkFixture) -> None:
    stats: Any = benchmark.stats
    if stats is not None:  # --benchmark-disable
        benchmark.extra_info["calls"] = CALLS
        benchmark.extra_info["ns_per_call"] = stats.stats.median / CALLS * 1e9


@pytest.mark.benchmark(group="check from Python")
def test_noop(benchmark: BenchmarkFixture) -> None:
    measure(benchmark, _core.noop, EXACT)


@pytest.mark.benchmark(group="check from Python")
@pytest.mark.parametrize("batch", [EXACT, PADDED, MISS], ids=["exact", "padded", "miss"])
def test_check(benchmark: BenchmarkFixture, batch: tuple[int, ...]) -> None:
    measure(benchmark, small_table().check, batch)


@pytest.mark.benchmark(group="check from Python")
def test_dict_with_a_ready_key(benchmark: BenchmarkFixture) -> None:
    graphs = {Key(2 * n, n, True): n for n in (4, 8, 16, 32)}
    assert graphs[READY] == 16
    measure(benchmark, graphs.get, (READY,))


@pytest.mark.benchmark(group="check from Python")
def test_dict_with_a_key_made_for_the_batch(benchmark: BenchmarkFixture) -> None:
    graphs = {Key(2 * n, n, True): n for n in (4, 8, 16, 32)}

    def look_up(num_tokens: int, num_reqs: int) -> int | None:
        return graphs.get(Key(num_tokens, num_reqs, True))

    assert look_up(32, 16) == 16
    measure(benchmark, look_up, (32, 16))


@pytest.mark.benchmark(group="check from Python by number of signatures")
@pytest.mark.parametrize("signatures", SIGNATURES)
def test_check_among(benchmark: BenchmarkFixture, signatures: int) -> None:
    check = table_of(signatures).check
    largest = 4 * (signatures // 10)
    measure(benchmark, check, (0, largest - 1, 2, 2 * (largest - 1), 0))


@pytest.mark.benchmark(group="ratios in one run")
def test_ratios(benchmark: BenchmarkFixture) -> None:
    """Interleave the candidates, so that a machine that slows down slows them all."""
    graphs = {Key(2 * n, n, True): n for n in (4, 8, 16, 32)}
    candidates: dict[str, tuple[Callable[..., object], tuple[object, ...]]] = {
        "noop": (_core.noop, EXACT),
        "check": (small_table().check, EXACT),
        "dict": (graphs.get, (READY,)),
        "dict_making_the_key": (lambda *key: graphs.get(Key(*key)), (32, 16, True)),
    }
    times: dict[str, list[int]] = {name: [] for name in candidates}

    def turn() -> None:
        for name, (call, arguments) in candidates.items():
            calls = starmap(call, repeat(arguments, CALLS))
            start = time.perf_counter_ns()
            drain(calls)
            times[name].append(time.perf_counter_ns() - start)

    pedantic(benchmark)(turn, rounds=ROUNDS, warmup_rounds=3)
    medians = {name: sorted(taken)[len(taken) // 2] / CALLS for name, taken in times.items()}
    benchmark.extra_info["ns_per_call"] = medians
    benchmark.extra_info["check_minus_noop_ns"] = medians["check"] - medians["noop"]
    benchmark.extra_info["check_over_dict"] = medians["check"] / medians["dict"]
    benchmark.extra_info["check_over_dict_making_the_key"] = (
        medians["check"] / medians["dict_making_the_key"]
    )
