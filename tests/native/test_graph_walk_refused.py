"""Graphs of which the driver does not say all, and graphs that no program makes."""

from __future__ import annotations

import pytest

from graphguard.graphs.contents import GraphContents
from graphguard.nodes import GraphNode
from tests.native.fake_driver import DEVICE_MEMORY, EMPTY, HOST_MEMORY, WHILE, FakeDriver


def test_a_driver_before_cuda_13_2_does_not_tell_conditional_bodies(fake: FakeDriver) -> None:
    graph = fake.graph()
    fake.add_conditional(graph, WHILE, [fake.graph()])
    assert fake.nodes(graph, 13_010) == (GraphNode("conditional", "unreadable"),)


def test_a_driver_before_cuda_12_3_does_not_tell_names(fake: FakeDriver) -> None:
    graph = fake.graph()
    fake.add_kernel(graph, fake.function("add", 8), (2, 1, 1))
    assert fake.nodes(graph, 12_020) == (GraphNode("kernel", "unreadable", (2, 1, 1), (1, 1, 1)),)


def test_graphs_within_graphs_are_followed_so_deep_and_no_deeper(fake: FakeDriver) -> None:
    graph = innermost = fake.graph()
    for _ in range(20):
        child = fake.graph()
        fake.add_child(innermost, child)
        innermost = child
    fake.add_kernel(innermost, fake.function("deep"))
    assert {(node.name, node.count) for node in fake.nodes(graph)} == {
        ("1 nodes", 16),
        ("unreadable", 1),
    }


def test_a_graph_that_holds_itself_ends_too(fake: FakeDriver) -> None:
    graph = fake.graph()
    fake.add_child(graph, graph)
    assert ("unreadable", 1) in {(node.name, node.count) for node in fake.nodes(graph)}


@pytest.mark.parametrize(
    ("function", "left"),
    [
        ("cuGraphNodeGetType", GraphNode("unknown", "unreadable", count=6)),
        ("cuGraphKernelNodeGetParams", GraphNode("kernel", "unreadable")),
        ("cuFuncGetName", GraphNode("kernel", "unreadable", (2, 1, 1), (1, 1, 1), 0, (8,))),
        ("cuFuncGetParamInfo", GraphNode("kernel", "add", (2, 1, 1), (1, 1, 1))),
        ("cuGraphMemcpyNodeGetParams", GraphNode("memcpy", "unreadable")),
        ("cuGraphMemsetNodeGetParams", GraphNode("memset", "unreadable")),
        ("cuGraphHostNodeGetParams", GraphNode("host", "unreadable")),
        ("cuGraphBatchMemOpNodeGetParams", GraphNode("batch_memory_operation", "unreadable")),
        ("cuGraphChildGraphNodeGetGraph", GraphNode("child", "unreadable")),
    ],
)
def test_what_the_driver_refuses_leaves_the_rest(
    fake: FakeDriver, function: str, left: GraphNode
) -> None:
    graph = fake.graph()
    fake.add_kernel(graph, fake.function("add", 8), (2, 1, 1))
    fake.add_memcpy(graph, HOST_MEMORY, DEVICE_MEMORY)
    fake.add_memset(graph, 4, 4)
    fake.add_host(graph, fake.exported_callback)
    fake.add_batch(graph, [1])
    fake.add_child(graph, fake.graph())
    whole = fake.nodes(graph)
    fake.refuse(function)
    part = fake.nodes(graph)
    assert left in part
    assert sum(node.count for node in part) == sum(node.count for node in whole) == 6
    if function != "cuGraphNodeGetType":
        assert len(set(whole) & set(part)) == 5


def test_a_graph_whose_nodes_are_refused_says_so_and_has_none(fake: FakeDriver) -> None:
    graph = fake.graph()
    fake.add_node(graph, EMPTY)
    fake.refuse("cuGraphGetNodes")
    contents = fake.walk(graph)
    assert contents.nodes == ()
    assert contents.digest == ""
    assert "did not say" in contents.error


def test_a_child_whose_nodes_are_refused_is_unreadable(fake: FakeDriver) -> None:
    graph, child = fake.graph(), fake.graph()
    fake.add_node(child, EMPTY)
    fake.add_child(graph, child)
    # Two calls for the graph, then the first one for the child.
    fake.refuse("cuGraphGetNodes", 3)
    assert fake.nodes(graph) == (GraphNode("child", "unreadable"),)


def test_no_graph_is_no_graph(fake: FakeDriver) -> None:
    assert "did not say" in fake.walk(0).error


def test_an_empty_graph_has_no_nodes_and_no_digest(fake: FakeDriver) -> None:
    assert fake.walk(fake.graph()) == GraphContents()


@pytest.mark.parametrize("seed", range(5))
def test_nodes_and_digest_do_not_depend_on_the_order_that_the_driver_returns(
    fake: FakeDriver, seed: int
) -> None:
    graph, child = fake.graph(), fake.graph()
    functions = [fake.function(f"kernel_{i}", 8) for i in range(5)]
    for i in range(100):
        fake.add_kernel(child if i % 7 == 0 else graph, functions[i % 5], (1 + i % 3, 1, 1))
    fake.add_child(graph, child)
    before = fake.walk(graph)
    fake.shuffle(seed)
    assert fake.walk(graph) == before
    assert len(before.digest) == 32
