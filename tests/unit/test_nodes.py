"""Nodes of graphs: counted, sorted, and digested so that no order is left."""

from __future__ import annotations

import random

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from graphguard.digest import encode
from graphguard.nodes import (
    MAX_NAME,
    GraphNode,
    counted,
    counted_and_digest,
    node_name,
    nodes_digest,
)

small = st.integers(0, 3)
extents = st.none() | st.tuples(small, small, small)
graph_nodes = st.builds(
    GraphNode,
    kind=st.sampled_from(["kernel", "memcpy"]),
    name=st.sampled_from(["", "a", "b", "ä"]),
    grid=extents,
    block=extents,
    shared_bytes=small,
    parameter_bytes=st.lists(small, max_size=2).map(tuple),
    count=st.integers(1, 3),
)
lists = st.lists(graph_nodes, max_size=12)
NODE = GraphNode("kernel", "add", (8, 1, 1), (128, 1, 1), 16, (8, 8, 4), 3)
CHANGES = {
    "kind": "memcpy",
    "name": "sub",
    "grid": (8, 1, 2),
    "block": (128, 1, 2),
    "shared_bytes": 17,
    "parameter_bytes": (8, 8, 8),
    "count": 4,
}


def taken_apart(nodes: list[GraphNode], seed: int) -> list[GraphNode]:
    """The same nodes, one by one and in another order."""
    apart = [msgspec.structs.replace(node, count=1) for node in nodes for _ in range(node.count)]
    random.Random(seed).shuffle(apart)  # noqa: S311 - an order, no secret
    return apart


@given(lists, st.integers())
def test_nothing_is_left_of_the_order(nodes: list[GraphNode], seed: int) -> None:
    shuffled = taken_apart(nodes, seed)
    assert counted(shuffled) == counted(nodes)
    assert nodes_digest(shuffled) == nodes_digest(nodes)


@given(lists)
def test_every_node_is_counted_once(nodes: list[GraphNode]) -> None:
    found = counted(nodes)
    assert sum(node.count for node in found) == sum(node.count for node in nodes)
    assert len({msgspec.structs.replace(node, count=1) for node in found}) == len(found)
    assert counted(found) == found


@given(lists, lists)
def test_digests_are_equal_exactly_if_the_nodes_are(a: list[GraphNode], b: list[GraphNode]) -> None:
    assert (nodes_digest(a) == nodes_digest(b)) == (counted(a) == counted(b))


@given(lists)
def test_both_at_once_are_the_two(nodes: list[GraphNode]) -> None:
    assert counted_and_digest(nodes) == (counted(nodes), nodes_digest(nodes))


@given(graph_nodes)
def test_the_encoding_is_the_digests_written_out(node: GraphNode) -> None:
    fields = tuple(getattr(node, name) for name in GraphNode.__struct_fields__ if name != "count")
    assert node.encoding == encode(fields)


@pytest.mark.parametrize("field", CHANGES)
def test_every_field_changes_the_digest(field: str) -> None:
    assert set(CHANGES) == set(GraphNode.__struct_fields__)
    other = msgspec.structs.replace(NODE, **{field: CHANGES[field]})
    assert nodes_digest([other]) != nodes_digest([NODE])


def test_an_extent_of_zero_is_not_none() -> None:
    without = msgspec.structs.replace(NODE, grid=None)
    assert nodes_digest([without]) != nodes_digest([msgspec.structs.replace(NODE, grid=(0, 0, 0))])


def test_the_digest_of_a_known_node_is_pinned() -> None:
    assert nodes_digest([NODE]) == "2ae0f1f5435b08bacdab1452cef85d38"


def test_no_nodes_have_no_digest() -> None:
    assert nodes_digest([]) == ""


@given(st.text(max_size=MAX_NAME))
def test_names_that_fit_are_left_alone(name: str) -> None:
    assert node_name(name) == name


@given(st.text(min_size=MAX_NAME + 1, max_size=MAX_NAME + 20), st.text(min_size=1, max_size=3))
def test_names_that_are_cut_differ_as_they_did(name: str, more: str) -> None:
    assert len(node_name(name)) == len(node_name(name + more)) == MAX_NAME
    assert node_name(name) != node_name(name + more)


def test_a_node_is_told_with_what_it_has() -> None:
    assert str(NODE) == "3 × kernel add (grid 8x1x1, block 128x1x1, 16 B shared)"
    assert str(GraphNode("empty")) == "empty"
