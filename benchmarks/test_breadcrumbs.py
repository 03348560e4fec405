"""What breadcrumbs cost a replay, a capture, and whoever reads them. Emulated graphs, one rank."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest
import torch
from pytest_benchmark.fixture import BenchmarkFixture

from benchmarks.breadcrumb_rows import LAUNCHES
from benchmarks.interleaved import compare
from benchmarks.pedantic import pedantic
from benchmarks.step import Model
from graphguard import BatchDescriptor
from graphguard.breadcrumbs.process import open_breadcrumbs
from graphguard.graphs.emulated import EmulatedGraph
from graphguard.recorders.graph_marks import watch_launches
from graphguard.watch.breadcrumbs import read_breadcrumbs

pytestmark = pytest.mark.usefixtures("one_rank")

EXACT = BatchDescriptor.of(16, 2)
ROUNDS = 2_000


@pytest.fixture(autouse=True)
def _no_gradients() -> Iterator[None]:
    with torch.no_grad():
        yield


def captured(model: Model) -> EmulatedGraph:
    graph = model.capture(EXACT).graph
    assert isinstance(graph, EmulatedGraph)
    return graph


@pytest.fixture
def marked(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> pytest.MonkeyPatch:
    monkeypatch.setenv("GRAPHGUARD_BREADCRUMBS", "1")
    monkeypatch.setenv("GRAPHGUARD_DIR", str(tmp_path))
    return monkeypatch


@pytest.mark.benchmark(group="emulated replay with marks, interleaved")
@pytest.mark.parametrize("num_layers", [1, 8], ids=["1 collective", "8 collectives"])
def test_marked_replay(
    benchmark: BenchmarkFixture, num_layers: int, marked: pytest.MonkeyPatch
) -> None:
    model = Model(num_layers)
    with_marks = captured(model)
    assert with_marks._marks is not None
    marked.setenv("GRAPHGUARD_BREADCRUMBS", "0")
    without = captured(model)
    assert without._marks is None
    candidates = {"without": without.replay, "with marks": with_marks.replay}
    compare(benchmark, candidates, rounds=ROUNDS)


@pytest.mark.benchmark(group="emulated capture with marks, interleaved")
def test_marked_capture(benchmark: BenchmarkFixture, marked: pytest.MonkeyPatch) -> None:
    model = Model(8)

    def capture(wanted: str) -> None:
        marked.setenv("GRAPHGUARD_BREADCRUMBS", wanted)
        captured(model)

    candidates = {"without": lambda: capture("0"), "with marks": lambda: capture("1")}
    compare(benchmark, candidates, rounds=100)


class Bare:
    """A graph whose launch does nothing, so that what is left is the counting."""

    def capture_begin(self) -> None:
        """Do nothing."""

    def replay(self) -> None:
        """Do nothing."""

    def reset(self) -> None:
        """Do nothing."""


@pytest.mark.benchmark(group="launches of nothing that are counted, a thousand, interleaved")
def test_counted_launches(
    benchmark: BenchmarkFixture, tmp_path: Path, marked: pytest.MonkeyPatch
) -> None:
    from graphguard.breadcrumbs.marking import Marks

    class Counted(Bare):
        pass

    watch_launches(Counted)
    native = open_breadcrumbs(tmp_path).native.add(["call"], 0, 0)
    assert native is not None
    graphs = {"bare": Bare(), "without marks": Counted(), "with marks": Counted()}
    Marks(native).keep_on(graphs["with marks"])

    def launches(graph: Bare) -> None:
        for _ in range(LAUNCHES):
            graph.replay()

    candidates = {name: lambda graph=graph: launches(graph) for name, graph in graphs.items()}
    compare(benchmark, candidates, rounds=200)


@pytest.mark.benchmark(group="reading breadcrumbs")
@pytest.mark.parametrize("num_graphs", [10, 1_000, 8_000])
@pytest.mark.parametrize("in_flight", [False, True], ids=["all", "in flight"])
def test_read_breadcrumbs(
    benchmark: BenchmarkFixture, tmp_path: Path, num_graphs: int, in_flight: bool
) -> None:
    crumbs = open_breadcrumbs(tmp_path)
    texts = [f"all_reduce of {count} float16 over tp:0[0-7]" for count in range(8)]
    every = [crumbs.native.add(texts, 4, 0) for _ in range(num_graphs)]
    last = every[-1]
    assert last is not None
    last.launch()

    def read() -> None:
        assert read_breadcrumbs(crumbs.path, in_flight=in_flight)[-1].launched == 1

    pedantic(benchmark)(read, rounds=50, warmup_rounds=3)
