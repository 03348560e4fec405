"""Marks of emulated graphs: what a replay passes, and what becomes of them."""

from __future__ import annotations

import gc
from collections.abc import Iterator
from pathlib import Path

import pytest
import torch
import torch.distributed as dist
from torch.testing._internal.distributed.fake_pg import FakeStore

from graphguard import BatchDescriptor, Session, install, record, uninstall
from graphguard.breadcrumbs import process, telling
from graphguard.errors import CaptureError
from graphguard.graphs.emulated import EmulatedGraph, capture
from graphguard.watch.breadcrumbs import CrumbState, read_breadcrumbs

BATCH = BatchDescriptor.of(4, 2)


@pytest.fixture(autouse=True)
def _group() -> Iterator[None]:
    dist.init_process_group("fake", rank=0, world_size=2, store=FakeStore())
    yield
    dist.destroy_process_group()


@pytest.fixture
def directory(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("GRAPHGUARD_BREADCRUMBS", "1")
    monkeypatch.setenv("GRAPHGUARD_DIR", str(tmp_path))
    monkeypatch.setattr(process, "_process", process._Process())
    monkeypatch.setattr(telling, "_told", set())
    return tmp_path


def states(directory: Path) -> tuple[CrumbState, ...]:
    paths = list(directory.glob("breadcrumbs.*"))
    assert len(paths) <= 1
    return read_breadcrumbs(paths[0]) if paths else ()


def only(directory: Path) -> CrumbState:
    (state,) = states(directory)
    return state


def fill(graph: EmulatedGraph, calls: int = 3) -> EmulatedGraph:
    x = torch.ones(8)
    with capture(graph):
        for call in range(calls):
            y = x * 2
            dist.all_reduce(y)
            # What needs a collective waits for it; the end waits for the last one.
            if call < calls - 1:
                x = y + 1
    return graph


def test_replays_are_counted(directory: Path) -> None:
    graph = fill(EmulatedGraph())
    for replay in range(1, 4):
        graph.replay()
        state = only(directory)
        assert (state.launched, state.finished, state.positions) == (replay, replay, 3)
    assert state.kind == "emulated"


def test_collectives_of_vllms_cpu_engine_are_marked_too(directory: Path) -> None:
    library = torch.library.Library("_C", "FRAGMENT")
    library.define("shm_allreduce(int handle, Tensor(a!) data) -> ()")
    seen: list[tuple[int, int]] = []

    def reduce(_handle: int, data: torch.Tensor) -> None:
        seen.append((only(directory).reached, only(directory).finished))
        data.mul_(2)

    library.impl("shm_allreduce", reduce, "CPU")
    library.impl("shm_allreduce", lambda *_: None, "Meta")
    x, graph = torch.ones(4), EmulatedGraph()
    with capture(graph):
        for _ in range(3):
            torch.ops._C.shm_allreduce(7, x)
    graph.replay()
    assert x[0].item() == 8
    assert seen == [(0, 0), (1, 0), (2, 0)]
    assert (only(directory).finished, only(directory).positions) == (1, 3)
    library._destroy()


def test_a_recording_names_graph_and_calls(directory: Path) -> None:
    graph = EmulatedGraph()
    with record("target", BATCH, session=Session()) as recording:
        fill(graph)
        recording.captured(graph)
    assert only(directory).graph == "target/full 4x2"
    assert only(directory).digest == int(recording.signature.shared_digest[:16], 16)


def test_a_program_that_is_recorded_names_its_graphs_too(directory: Path) -> None:
    installation = install("observe", Session())
    try:
        graph = fill(EmulatedGraph())
        graph.replay()
        assert only(directory).graph == "graph/full/pool0.0 0t"
        installation.describe(graph, role="target", batch=BATCH)
    finally:
        uninstall()
    signature = installation.signature_of(graph)
    assert signature is not None
    assert only(directory).graph == "target/full 4x2"
    assert only(directory).digest == int(signature.shared_digest[:16], 16)
    assert only(directory).finished == 1


def test_the_digest_of_the_nodes_is_that_without_marks(
    directory: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    marked = fill(EmulatedGraph())
    monkeypatch.setenv("GRAPHGUARD_BREADCRUMBS", "0")
    plain = fill(EmulatedGraph())
    assert marked.nodes == plain.nodes
    assert len(states(directory)) == 1
    plain.replay()


def test_a_graph_without_collectives_has_no_marks(directory: Path) -> None:
    graph = EmulatedGraph()
    with capture(graph):
        torch.ones(4)
    graph.replay()
    assert states(directory) == ()


def test_a_replay_that_raises_is_not_in_flight(
    directory: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    graph = fill(EmulatedGraph())
    graph.replay()
    steps = graph._steps
    assert steps is not None
    monkeypatch.setattr(steps[-1], "_group", lambda: None)
    with pytest.raises(CaptureError, match="was destroyed"):
        graph.replay()
    assert (only(directory).launched, only(directory).in_flight) == (2, 0)


@pytest.mark.parametrize("end", ["reset", "captured again", "collected", "capture failed"])
def test_marks_end_with_their_capture(directory: Path, end: str) -> None:
    graph = fill(EmulatedGraph())
    graph.replay()
    assert only(directory).launched == 1
    if end == "reset":
        graph.reset()
    elif end == "captured again":
        fill(graph, calls=2)
        assert (only(directory).launched, only(directory).positions) == (0, 2)
        return
    elif end == "capture failed":
        with pytest.raises(ZeroDivisionError), capture(graph):
            _ = 1 / 0
    else:
        del graph
        gc.collect()
    assert states(directory) == ()


def test_a_capture_goes_on_where_there_can_be_no_file(
    directory: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    (directory / "file").touch()
    monkeypatch.setenv("GRAPHGUARD_DIR", str(directory / "file"))
    for _ in range(2):
        fill(EmulatedGraph()).replay()
    assert caplog.text.count("breadcrumbs are missing") == 1
