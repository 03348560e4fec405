from __future__ import annotations

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from graphguard.audit.differences_nodes import NodeChange, nodes_difference, were_compared
from graphguard.nodes import GraphNode, counted, nodes_digest
from graphguard.signature import Signature
from tests.unit.audit.jobs import graph

GEMM = GraphNode("kernel", "gemm", (8, 1, 1), (128, 1, 1), 1024, (8, 8), 3)
NODES = st.lists(
    st.builds(
        GraphNode,
        kind=st.sampled_from(["kernel", "memcpy"]),
        name=st.sampled_from(["a", "b"]),
        count=st.integers(1, 3),
    ),
    max_size=6,
)


def with_nodes(*nodes: GraphNode) -> Signature:
    return msgspec.structs.replace(graph(), nodes=nodes_digest(nodes), graph_nodes=counted(nodes))


def test_equal_nodes_have_no_difference() -> None:
    assert nodes_difference(with_nodes(GEMM), with_nodes(GEMM)) is None


@pytest.mark.parametrize(
    "changes",
    [
        {"grid": (16, 1, 1)},
        {"block": (256, 1, 1)},
        {"shared_bytes": 2048},
        {"parameter_bytes": (8,)},
        {"count": 4},
    ],
)
def test_a_kernel_that_is_launched_otherwise_is_told_with_both_launches(
    changes: dict[str, object],
) -> None:
    other = msgspec.structs.replace(GEMM, **changes)
    memset = GraphNode("memset")

    found = nodes_difference(with_nodes(GEMM, memset), with_nodes(other, memset))

    assert found is not None
    assert found.changes == (NodeChange("kernel", "gemm", (GEMM,), (other,)),)
    assert found.counts == (4, 1 + other.count)


def test_another_kernel_is_one_gone_and_one_added() -> None:
    other = msgspec.structs.replace(GEMM, name="gemm_v2")
    found = nodes_difference(with_nodes(GEMM), with_nodes(other))
    assert found is not None
    assert found.changes == (
        NodeChange("kernel", "gemm", (GEMM,), ()),
        NodeChange("kernel", "gemm_v2", (), (other,)),
    )


def test_nodes_of_which_only_the_digest_is_known_differ_without_a_word_in_what() -> None:
    digest_only = msgspec.structs.replace(graph(), nodes="ab")
    found = nodes_difference(with_nodes(GEMM), digest_only)
    assert found is not None
    assert (found.counts, found.changes) == ((3, None), ())


def test_a_graph_that_nobody_looked_into_is_not_compared() -> None:
    assert nodes_difference(with_nodes(GEMM), graph()) is None
    assert not were_compared(with_nodes(GEMM), graph())
    assert were_compared(with_nodes(GEMM), with_nodes(GEMM))


@given(NODES, NODES)
def test_the_changes_are_exactly_what_is_not_in_both(
    ours: list[GraphNode], theirs: list[GraphNode]
) -> None:
    before, after = with_nodes(*ours), with_nodes(*theirs)
    found = nodes_difference(before, after)

    if not ours or not theirs or before.graph_nodes == after.graph_nodes:
        assert found is None
        return
    assert found is not None
    gone = {node for change in found.changes for node in change.before}
    added = {node for change in found.changes for node in change.after}
    assert (set(before.graph_nodes) - gone) | added == set(after.graph_nodes)
    assert not gone & added
