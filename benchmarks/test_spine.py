"""What ``graphguard.install()`` adds to each capture and each launch of a program.

The graphs are torch's own Python class over a stand-in for its C++ half, so what is left is the
spine. What stands beside is the same class, loaded once more and not watched.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
import torch
from pytest_benchmark.fixture import BenchmarkFixture

from benchmarks.interleaved import compare
from benchmarks.step import Model
from graphguard import BatchDescriptor, Session
from graphguard.blackbox.writer import open_box
from graphguard.environment import Mode
from graphguard.graphs.emulated import EmulatedGraph
from graphguard.program_graphs import ProgramGraphs
from graphguard.recorders.spine import Adapter
from graphguard.recorders.spine_hooks import HookAdapter
from graphguard.recorders.spine_patches import PatchAdapter
from tests.unit.recorders import hooked_graphs
from tests.unit.recorders.graph_libraries import Library, NativeGraph, of_installed_torch

Watch = Callable[[Adapter], ProgramGraphs]
EXACT = BatchDescriptor.of(16, 2)


@pytest.fixture(autouse=True)
def _no_gradients() -> Iterator[None]:
    with torch.no_grad():
        yield


@pytest.fixture
def watch(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Watch]:
    """Watch the graphs of an adapter, with a black box."""
    box = open_box(tmp_path / "boxes", 16_384)
    monkeypatch.setattr("graphguard.blackbox.writer.process_box", lambda: box)
    watched: list[tuple[ProgramGraphs, Adapter]] = []

    def watch(adapter: Adapter) -> ProgramGraphs:
        # Captures are measured many times over, and none of them is to be left out.
        monkeypatch.setattr("graphguard.program_graphs.MAX_GRAPHS", 10**9)
        program = ProgramGraphs(Mode.OBSERVE, Session())
        adapter.install(program)
        watched.append((program, adapter))
        return program

    yield watch
    for program, adapter in watched:
        program.active = False
        adapter.uninstall()


def patched() -> tuple[Library, Library]:
    """Return the graphs of the torch that is installed, twice."""
    return of_installed_torch(), of_installed_torch()


def hooked() -> tuple[Library, Library]:
    """Return graphs with the hooks of torch 2.14, and the same once more."""

    class Unwatched(hooked_graphs.CUDAGraph):
        capture_begin = NativeGraph.capture_begin

    library = Library("hooks", hooked_graphs.CUDAGraph, lambda: HookAdapter(hooked_graphs))
    return library, Library("bare", Unwatched, lambda: HookAdapter(hooked_graphs))


@pytest.mark.benchmark(group="a launch that does nothing, interleaved")
@pytest.mark.parametrize("libraries", [patched, hooked], ids=["patched", "hooked"])
def test_launch(
    benchmark: BenchmarkFixture, watch: Watch, libraries: Callable[[], tuple[Library, Library]]
) -> None:
    watched, bare = libraries()
    watch(watched.adapter())
    # A thousand at a time: the clock takes longer than one of them.
    candidates = {"bare": bare.captured().replay, "watched": watched.captured().replay}

    def many(replay: Callable[[], None]) -> Callable[[], None]:
        def run() -> None:
            for _ in range(1000):
                replay()

        return run

    compare(benchmark, {name: many(replay) for name, replay in candidates.items()}, rounds=200)


@pytest.mark.benchmark(group="a capture of nothing, interleaved")
@pytest.mark.parametrize("libraries", [patched, hooked], ids=["patched", "hooked"])
def test_empty_capture(
    benchmark: BenchmarkFixture, watch: Watch, libraries: Callable[[], tuple[Library, Library]]
) -> None:
    watched, bare = libraries()
    watch(watched.adapter())
    compare(benchmark, {"bare": bare.captured, "watched": watched.captured}, rounds=500)


@pytest.mark.benchmark(group="capture of 25 operations with 8 all-reduces, interleaved")
@pytest.mark.usefixtures("one_rank")
def test_watched_capture(benchmark: BenchmarkFixture, watch: Watch) -> None:
    class Watched(EmulatedGraph): ...

    watch(PatchAdapter(Watched))
    model = Model(8)

    def capture(graph_class: type[EmulatedGraph]) -> Callable[[], object]:
        library = Library("emulated", graph_class, lambda: PatchAdapter(graph_class))
        return lambda: library.captured(lambda: model.forward(EXACT))

    candidates = {"not recorded": capture(EmulatedGraph), "recorded": capture(Watched)}
    compare(benchmark, candidates, rounds=200)
