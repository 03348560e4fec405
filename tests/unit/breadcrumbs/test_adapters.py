"""Marks of graphs that other libraries capture: added before the end, counted when launched."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from graphguard import BatchDescriptor, Session
from graphguard.breadcrumbs.marking import Marks
from graphguard.breadcrumbs.process import Breadcrumbs, open_breadcrumbs
from graphguard.graphs import contents
from graphguard.graphs.contents import GraphContents
from graphguard.graphs.cuda_core import CudaCoreGraph, building
from graphguard.recorders import graph_marks
from graphguard.watch.breadcrumbs import CrumbState, read_breadcrumbs
from tests.unit.graphs.stand_in_cupy import BaseStream, stand_in_cupy
from tests.unit.graphs.test_cuda_core import Builder

BATCH = BatchDescriptor.of(4, 2)
HANDLE = 0x5000


class Marked:
    """Takes the place of what adds nodes: keeps what it was given, and gives each graph a mark."""

    def __init__(self, crumbs: Breadcrumbs) -> None:
        self.crumbs = crumbs
        self.marked: list[tuple[Any, int, GraphContents | None]] = []
        self.prepared = 0

    def mark(self, graph: Any, handle: int, found: GraphContents | None) -> None:
        self.marked.append((graph, handle, found))
        native = self.crumbs.native.add(["call"], 0, 0)
        assert native is not None
        Marks(native).keep_on(graph)

    def prepare(self) -> None:
        self.prepared += 1

    @property
    def states(self) -> tuple[CrumbState, ...]:
        return read_breadcrumbs(self.crumbs.path)


@pytest.fixture
def marked(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Marked:
    marked = Marked(open_breadcrumbs(tmp_path))
    monkeypatch.setenv("GRAPHGUARD_BREADCRUMBS", "1")
    monkeypatch.setattr(graph_marks, "mark", marked.mark)
    monkeypatch.setattr(graph_marks, "prepare", marked.prepare)
    return marked


FOUND = GraphContents(digest="of the nodes")


class Refuses:
    """A graph whose launch fails."""

    def launch(self, _stream: Any = None) -> None:
        raise RuntimeError("not now")

    def close(self) -> None: ...


def test_a_graph_of_cuda_core_is_marked_between_its_end_and_its_completion(
    marked: Marked, session: Session, monkeypatch: pytest.MonkeyPatch
) -> None:
    builder = Builder()
    builder.graph_definition.handle = HANDLE
    told: list[object] = []

    def look(_handle: int) -> GraphContents:
        told.extend(builder.told)
        return FOUND

    monkeypatch.setattr(contents, "contents_of_handle", look)
    with building(builder, "target", BATCH, session=session) as made:
        pass
    assert told == [("begin", "relaxed"), "end"]
    ((graph, handle, found),) = marked.marked
    assert (graph, handle, found) == (made.graph, HANDLE, FOUND)
    assert made.signature.nodes == "of the nodes"

    made.graph.replay()
    assert [state.launched for state in marked.states] == [1]
    made.graph.captured = Refuses()
    with pytest.raises(RuntimeError, match="not now"):
        made.graph.replay()
    assert [state.launched for state in marked.states] == [1]
    made.graph.reset()
    assert marked.states == ()


def test_a_graph_of_cuda_core_that_does_not_tell_its_handle_has_no_marks(
    marked: Marked, session: Session
) -> None:
    with building(Builder(), "target", BATCH, session=session) as made:
        pass
    made.graph.replay()
    assert marked.marked == []
    assert isinstance(made.graph, CudaCoreGraph)


@pytest.fixture
def cupy_graphs() -> Iterator[Any]:
    with stand_in_cupy():
        from graphguard.graphs import cupy

        yield cupy


def test_a_graph_of_cupy_is_marked_before_its_end_and_after_it_was_looked_at(
    marked: Marked, cupy_graphs: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    stream = BaseStream()
    seen: list[bool] = []

    def look(_stream: int) -> GraphContents:
        seen.append(stream.is_capturing())
        return FOUND

    class Driver:
        @staticmethod
        def capture_of(_stream: int) -> tuple[int, int, int]:
            seen.append(stream.is_capturing())
            return 1, HANDLE, contents.CAPTURE_ACTIVE

    monkeypatch.setattr(contents, "contents_of_stream", look)
    monkeypatch.setattr(cupy_graphs, "_core", Driver)
    graph = cupy_graphs.CupyGraph()
    with cupy_graphs.capture(graph, stream):
        pass
    assert seen == [True, True]
    assert marked.marked == [(graph, HANDLE, FOUND)]
    graph.launch()
    graph.replay()
    assert graph.captured.launches == 2
    assert [state.launched for state in marked.states] == [2]
    graph.captured = Refuses()
    with pytest.raises(RuntimeError, match="not now"):
        graph.replay()
    assert [state.launched for state in marked.states] == [2]
    graph.reset()
    assert marked.states == ()


_INSTALLS = """
import sys
import graphguard, torch
before = torch.cuda.CUDAGraph.replay
graphguard.install("observe")
wrapped = torch.cuda.CUDAGraph.replay
graphguard.uninstall()
after = torch.cuda.CUDAGraph.replay
print(hasattr(before, "__graphguard_counts__"), hasattr(after, "__graphguard_counts__"))
print("graphguard.breadcrumbs.marking" in sys.modules)
"""


@pytest.mark.parametrize(("wanted", "counts"), [("0", "False"), ("1", "True")])
def test_a_program_that_is_recorded_counts_launches_only_if_marks_are_wanted(
    wanted: str, counts: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("GRAPHGUARD_BREADCRUMBS", wanted)
    done = subprocess.run(
        [sys.executable, "-c", _INSTALLS], capture_output=True, text=True, timeout=120, check=True
    )
    assert done.stdout.split() == ["False", counts, "False"]
