"""What a guard adds to a replay, and recording to a capture. Emulated graphs, one rank."""

from collections.abc import Iterator

import pytest
import torch
from pytest_benchmark.fixture import BenchmarkFixture

from benchmarks.interleaved import compare
from benchmarks.step import SIZES, Model
from graphguard import BatchDescriptor

pytestmark = pytest.mark.usefixtures("one_rank")

EXACT, PADDED = BatchDescriptor.of(16, 2), BatchDescriptor.of(15, 2)


@pytest.fixture(autouse=True)
def _no_gradients() -> Iterator[None]:
    with torch.no_grad():
        yield


class Nothing:
    """A graph whose replay does nothing, so that what is left is the guard."""

    def replay(self) -> None:
        """Do nothing."""

    def reset(self) -> None:
        """Do nothing."""


@pytest.mark.benchmark(group="replay of nothing: what the guard itself takes")
class TestGuardAlone:
    def test_bare(self, benchmark: BenchmarkFixture) -> None:
        benchmark(Nothing().replay)

    @pytest.mark.parametrize("mode", ["observe", "enforce"])
    @pytest.mark.parametrize("batch", [EXACT, PADDED], ids=["exact", "padded"])
    def test_guarded(self, benchmark: BenchmarkFixture, mode: str, batch: BatchDescriptor) -> None:
        guarded = Model(0).guarded(mode)
        guarded.warm_up(SIZES)
        for number, captured in enumerate(guarded._graphs.captured):
            guarded._graphs.captured[number] = type(captured)(Nothing(), outputs=captured.outputs)

        benchmark(guarded, batch)


@pytest.mark.benchmark(group="emulated replay, interleaved")
@pytest.mark.parametrize("num_layers", [0, 8], ids=["1 operation", "25 operations"])
def test_replay(benchmark: BenchmarkFixture, num_layers: int) -> None:
    model = Model(num_layers)
    guarded = model.guarded("enforce")
    guarded.warm_up(SIZES)
    compare(
        benchmark,
        {
            "bare": guarded._graphs.captured[SIZES.index(EXACT)].graph.replay,
            "guarded": lambda: guarded(EXACT),
            "eager": lambda: model.forward(EXACT),
        },
        rounds=1000,
    )


@pytest.mark.benchmark(group="capture of 25 operations with 8 all-reduces, interleaved")
def test_capture(benchmark: BenchmarkFixture) -> None:
    model = Model(8)
    compare(
        benchmark,
        {
            "not recorded": lambda: model.guarded("off").warm_up([EXACT]),
            "recorded": lambda: model.guarded("enforce").warm_up([EXACT]),
        },
        rounds=200,
    )
