"""What is remembered of graphs. The driver is made up here; tests/native ask a stand-in."""

from __future__ import annotations

import gc
import logging
from typing import Any

import pytest

from graphguard import graphs
from graphguard.graphs import contents
from graphguard.graphs.contents import GraphContents, contents_of, contents_of_handle, keep, kept
from graphguard.nodes import GraphNode, nodes_digest

EMPTY = ("empty", "", None, None, 0, (), 1)


class Driver:
    """Says the same of every graph."""

    def __init__(self, *nodes: Any, error: str = "") -> None:
        self.answer = (list(nodes), 0, error)
        self.asked: list[int] = []

    def walk_graph(self, graph: int, /) -> tuple[list[Any], int, str]:
        self.asked.append(graph)
        return self.answer

    def capture_of(self, stream: int, /) -> tuple[int, int, int] | None:
        raise AssertionError(stream)


class Graph:
    """A graph as a library makes it."""

    def replay(self) -> None: ...

    def reset(self) -> None: ...


class RawGraph(Graph):
    """A graph that gives its handle, as torch does."""

    def __init__(self, handle: object) -> None:
        self.handle = handle

    def raw_cuda_graph(self) -> object:
        if isinstance(self.handle, Exception):
            raise self.handle
        return self.handle


@pytest.fixture(autouse=True)
def _nothing_was_said(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(contents, "_told", False)


def test_nodes_are_counted_and_digested() -> None:
    found = contents_of_handle(4096, Driver(EMPTY, EMPTY))
    nodes = (GraphNode("empty", count=2),)
    assert found == GraphContents(nodes, nodes_digest(nodes))


def test_a_part_of_a_graph_is_not_taken_for_the_whole() -> None:
    found = contents_of_handle(4096, Driver(EMPTY, error="too many"))
    assert found == GraphContents(error="too many")


def test_a_graph_that_gives_its_handle_is_looked_at() -> None:
    driver = Driver(EMPTY)
    found = contents_of(RawGraph(4096), driver)
    assert found is not None
    assert found.nodes == (GraphNode("empty"),)
    assert driver.asked == [4096]


@pytest.mark.parametrize("handle", [0, None, "4096", RuntimeError("keep_graph is false")])
def test_a_graph_that_does_not_give_its_handle_has_no_contents(handle: object) -> None:
    driver = Driver(EMPTY)
    assert contents_of(RawGraph(handle), driver) is None
    assert driver.asked == []


def test_a_graph_of_an_unknown_kind_has_no_nodes() -> None:
    assert graphs.nodes_of(Graph()) == ""
    assert graphs.graph_nodes_of(Graph()) == ()


def test_what_was_seen_counts_before_what_can_be_asked() -> None:
    graph = RawGraph(4096)
    driver = Driver()
    seen = contents_of_handle(1, Driver(EMPTY))
    keep(graph, seen)
    assert contents_of(graph, driver) is seen
    assert driver.asked == []
    assert graphs.nodes_of(graph) == seen.digest
    assert graphs.graph_nodes_of(graph) == seen.nodes


def test_what_was_seen_goes_with_its_graph() -> None:
    graph = Graph()
    keep(graph, GraphContents())
    before = len(contents._kept)
    del graph
    gc.collect()
    assert len(contents._kept) == before - 1


def test_why_nodes_are_missing_is_logged_once(caplog: pytest.LogCaptureFixture) -> None:
    with caplog.at_level(logging.WARNING, "graphguard"):
        keep(Graph(), GraphContents(error="no CUDA driver: gone"))
        keep(Graph(), GraphContents(error="no CUDA driver: gone"))
    assert [record.getMessage() for record in caplog.records] == [
        "the nodes of a CUDA graph are not recorded: no CUDA driver: gone; said once"
    ]


def test_a_graph_that_cannot_be_remembered_is_captured_all_the_same(
    caplog: pytest.LogCaptureFixture,
) -> None:
    class Slotted:
        __slots__ = ()

    with caplog.at_level(logging.WARNING, "graphguard"):
        keep(Slotted(), GraphContents())
    assert "Slotted cannot be remembered" in caplog.text
    assert kept(Slotted()) is None
