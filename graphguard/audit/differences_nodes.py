"""How the nodes of a graph differ between two recordings: which kernels, and in what."""

from __future__ import annotations

from collections.abc import Iterable, Sequence

import msgspec

from graphguard.nodes import GraphNode
from graphguard.signature import Signature


class NodeChange(msgspec.Struct, frozen=True):
    """Nodes of one kind and name that are not the same in both graphs.

    Attributes:
        kind: Of the nodes: ``kernel``, ``memcpy`` …
        name: Of the kernel; empty where the kind has none.
        before: Those of the first graph that the second does not have, or not as often.
        after: Those of the second graph that the first does not have, or not as often.
    """

    kind: str
    name: str
    before: tuple[GraphNode, ...]
    after: tuple[GraphNode, ...]


class NodesDifference(msgspec.Struct, frozen=True):
    """How the nodes of a graph differ.

    Attributes:
        counts: How many nodes each of the two graphs has; None where they were not recorded.
        changes: What differs, by kind and name. Empty where only the digests of the nodes are
            known, which differ.
    """

    counts: tuple[int | None, int | None]
    changes: tuple[NodeChange, ...]


def nodes_difference(ours: Signature, theirs: Signature) -> NodesDifference | None:
    """Return how the nodes of two graphs differ; None if they do not, or one was not looked at."""
    if not ours.nodes or not theirs.nodes or ours.nodes == theirs.nodes:
        return None
    counts = _total(ours.graph_nodes), _total(theirs.graph_nodes)
    if None in counts:
        return NodesDifference(counts, ())
    return NodesDifference(counts, tuple(_changes(ours.graph_nodes, theirs.graph_nodes)))


def were_compared(ours: Signature, theirs: Signature) -> bool:
    """Return whether the nodes of both graphs were looked at when they were captured."""
    return bool(ours.nodes and theirs.nodes)


def _total(nodes: Iterable[GraphNode]) -> int | None:
    return sum(node.count for node in nodes) or None


def _changes(ours: Sequence[GraphNode], theirs: Sequence[GraphNode]) -> Iterable[NodeChange]:
    changed: dict[tuple[str, str], tuple[list[GraphNode], list[GraphNode]]] = {}
    for side, (nodes, others) in enumerate(((ours, set(theirs)), (theirs, set(ours)))):
        for node in nodes:
            if node not in others:
                changed.setdefault((node.kind, node.name), ([], []))[side].append(node)
    for (kind, name), (gone, added) in sorted(changed.items()):
        # In the order of the signature, which sorts its nodes.
        yield NodeChange(kind, name, tuple(gone), tuple(added))
