"""Graphs are looked at while they are captured.

torch's class and the driver are made up here: the CPU build of torch has no CUDA graphs. tests/gpu
has the same with the real ones.
"""

from __future__ import annotations

from typing import Any

import pytest

from graphguard.graphs import contents
from graphguard.graphs.contents import GraphContents, contents_of
from graphguard.nodes import GraphNode
from graphguard.recorders import graph_nodes
from graphguard.recorders.graph_nodes import watch_class, watched_captures

STREAM = 7


class Driver:
    """Tells of one capture."""

    def __init__(self) -> None:
        self.capture: tuple[int, int, int] | None = (42, 4096, 1)
        self.nodes: list[Any] = [("empty", "", None, None, 0, (), 1)]
        self.error: Exception | None = None

    def walk_graph(self, graph: int, /) -> tuple[list[Any], int, str]:
        assert graph == 4096
        if self.error is not None:
            raise self.error
        return self.nodes, 0, ""

    def capture_of(self, stream: int, /) -> tuple[int, int, int] | None:
        assert stream == STREAM
        return self.capture


@pytest.fixture
def driver() -> Driver:
    return Driver()


@pytest.fixture
def graph_class(driver: Driver) -> type[Any]:
    class CUDAGraph:
        def __init__(self) -> None:
            self.ended: list[str] = []

        def capture_end(self, how: str = "well") -> str:
            """End the capture."""
            self.ended.append(how)
            return how

        def raw_cuda_graph(self) -> int:
            raise RuntimeError("keep_graph is false")

    watch_class(CUDAGraph, lambda: STREAM, driver)
    return CUDAGraph


@pytest.fixture
def watching(monkeypatch: pytest.MonkeyPatch) -> None:
    # The CPU build of torch is never watched, see below; this is what watching comes to.
    monkeypatch.setattr(graph_nodes, "_watchers", 1)
    monkeypatch.setattr(contents, "_told", False)


@pytest.mark.usefixtures("watching")
def test_what_is_captured_is_remembered_before_the_capture_ends(
    graph_class: type[Any], driver: Driver
) -> None:
    graph = graph_class()
    assert graph.capture_end("so") == "so"
    assert graph.ended == ["so"]
    found = contents_of(graph)
    assert found is not None
    assert found.nodes == (GraphNode("empty"),)
    driver.nodes = [("kernel", "add", (1, 1, 1), (1, 1, 1), 0, (), 2)]
    graph.capture_end()
    again = contents_of(graph)
    assert again is not None
    assert [node.name for node in again.nodes] == ["add"]


def test_nothing_is_looked_at_while_nobody_watches(graph_class: type[Any]) -> None:
    graph = graph_class()
    graph.capture_end()
    assert graph.ended == ["well"]
    assert contents_of(graph) is None


@pytest.mark.usefixtures("watching")
@pytest.mark.parametrize(
    ("capture", "said"),
    [
        (None, "the driver does not say what is being captured"),
        # Ending an invalidated capture fails, and says why.
        ((0, 0, 2), ""),
        ((0, 0, 0), ""),
    ],
)
def test_of_a_capture_that_is_not_told_nothing_is_remembered(
    graph_class: type[Any],
    driver: Driver,
    capture: tuple[int, int, int] | None,
    said: str,
    caplog: pytest.LogCaptureFixture,
) -> None:
    graph = graph_class()
    graph.capture_end()
    driver.capture = capture
    graph.capture_end()
    assert contents_of(graph) is None
    assert said in caplog.text
    assert bool(said) == bool(caplog.records)


@pytest.mark.usefixtures("watching")
def test_a_fault_of_the_look_does_not_reach_the_capture(
    graph_class: type[Any], driver: Driver, caplog: pytest.LogCaptureFixture
) -> None:
    driver.error = ValueError("no")
    graph = graph_class()
    assert graph.capture_end() == "well"
    assert contents_of(graph) is None
    assert "ValueError: no" in caplog.text


def test_a_class_is_changed_once(graph_class: type[Any], driver: Driver) -> None:
    before = graph_class.capture_end
    watch_class(graph_class, lambda: STREAM, driver)
    assert graph_class.capture_end is before
    assert before.__name__ == "capture_end"
    assert before.__doc__ == "End the capture."


@pytest.mark.usefixtures("watching")
def test_a_class_that_ends_captures_otherwise_is_left_alone(
    driver: Driver, caplog: pytest.LogCaptureFixture
) -> None:
    class OtherGraph:
        pass

    watch_class(OtherGraph, lambda: STREAM, driver)
    assert not hasattr(OtherGraph, "capture_end")
    assert "OtherGraph has no capture_end" in caplog.text


def test_a_torch_without_cuda_is_left_alone(monkeypatch: pytest.MonkeyPatch) -> None:
    import torch

    monkeypatch.setattr(torch.version, "cuda", None)
    before = torch.cuda.CUDAGraph.capture_end
    with watched_captures():
        assert graph_nodes._watchers == 0
        assert torch.cuda.CUDAGraph.capture_end is before


def test_what_stands_in_for_a_graph_of_torch_is_left_alone(monkeypatch: pytest.MonkeyPatch) -> None:
    import torch

    from graphguard.graphs.emulated import EmulatedGraph

    class StandIn(EmulatedGraph):
        def capture_end(self) -> None: ...

    before = vars(StandIn)["capture_end"]
    monkeypatch.setattr(torch.version, "cuda", "13.0")
    monkeypatch.setattr(torch.cuda, "CUDAGraph", StandIn)
    with watched_captures():
        assert graph_nodes._watchers == 0
        assert vars(StandIn)["capture_end"] is before


def test_captures_are_watched_while_anybody_is_inside(
    monkeypatch: pytest.MonkeyPatch, graph_class: type[Any]
) -> None:
    import torch

    monkeypatch.setattr(torch.version, "cuda", "13.0")
    monkeypatch.setattr(torch.cuda, "CUDAGraph", graph_class)
    with watched_captures(), watched_captures():
        assert graph_nodes._watchers == 2
    assert graph_nodes._watchers == 0


def test_nothing_is_remembered_of_a_graph_that_was_never_captured(graph_class: type[Any]) -> None:
    assert contents_of(graph_class()) is None
    assert GraphContents().digest == ""
