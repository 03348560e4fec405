"""Which graphs of one process were added, are gone or have changed between two recordings."""

from __future__ import annotations

from collections.abc import Iterator
from enum import Enum

import msgspec

from graphguard.audit.differences_calls import CallComparison, CallsDifference, Communicators
from graphguard.audit.differences_nodes import NodesDifference, nodes_difference, were_compared
from graphguard.audit.differences_tensors import TensorChange, tensor_changes
from graphguard.batch import BatchDescriptor
from graphguard.manifest import Manifest
from graphguard.signature import GraphKey, Signature


class Change(str, Enum):
    """What became of a graph."""

    ADDED = "added"
    GONE = "gone"
    CHANGED = "changed"

    def __str__(self) -> str:
        return self.value


class GraphDifference(msgspec.Struct, frozen=True, kw_only=True):
    """A graph that is not the same in both recordings.

    Attributes:
        graph: Its key and batch.
        change: What became of it; the other fields are of one that has changed.
        collectives: How many calls it makes, of one that was added or is gone.
        calls: How its collective calls differ.
        nodes: How its nodes differ.
        tensors: Which of its static tensors differ.
        memory_bytes: The device memory that its capture reserved, where that differs.
        graph_kind: What kind of graph it is, where that differs.
    """

    graph: str
    change: Change
    collectives: int = 0
    calls: CallsDifference | None = None
    nodes: NodesDifference | None = None
    tensors: tuple[TensorChange, ...] = ()
    memory_bytes: tuple[int, int] | None = None
    graph_kind: tuple[str, str] | None = None


class GraphsCompared(msgspec.Struct, frozen=True):
    """The graphs of one process in two recordings.

    Attributes:
        differences: Those that differ: first those of the first recording, in its order.
        alike: How many are the same.
        nodes_unknown: Graphs of both recordings whose nodes were not recorded in one of them.
    """

    differences: tuple[GraphDifference, ...]
    alike: int
    nodes_unknown: int


_Name = tuple[GraphKey, BatchDescriptor, int]


def compare_graphs(ours: Manifest, theirs: Manifest) -> GraphsCompared:
    """Compare what one process captured in two recordings, graph by graph."""
    before, after = dict(_named(ours)), dict(_named(theirs))
    calls = CallComparison(Communicators(ours.signatures), Communicators(theirs.signatures))
    differences: list[GraphDifference] = []
    nodes_unknown = 0
    for name, signature in before.items():
        if (other := after.get(name)) is None:
            differences.append(_one_sided(name, signature, Change.GONE))
            continue
        nodes_unknown += not were_compared(signature, other)
        difference = _changed(name, signature, other, calls)
        if difference is not None:
            differences.append(difference)
    added = [name for name in after if name not in before]
    differences += [_one_sided(name, after[name], Change.ADDED) for name in added]
    alike = len(before) + len(added) - len(differences)
    return GraphsCompared(tuple(differences), alike, nodes_unknown)


def _named(manifest: Manifest) -> Iterator[tuple[_Name, Signature]]:
    seen: dict[tuple[GraphKey, BatchDescriptor], int] = {}
    for signature in manifest.signatures:
        number = seen[signature.key, signature.batch] = (
            seen.get((signature.key, signature.batch), 0) + 1
        )
        yield (signature.key, signature.batch, number), signature


def _text(name: _Name) -> str:
    key, batch, number = name
    return f"{key} {batch}" + (f" (capture {number})" if number > 1 else "")


def _one_sided(name: _Name, signature: Signature, change: Change) -> GraphDifference:
    return GraphDifference(graph=_text(name), change=change, collectives=len(signature.collectives))


def _changed(
    name: _Name, ours: Signature, theirs: Signature, calls: CallComparison
) -> GraphDifference | None:
    memory = ours.memory_bytes, theirs.memory_bytes
    kinds = ours.graph_kind, theirs.graph_kind
    difference = GraphDifference(
        graph=_text(name),
        change=Change.CHANGED,
        calls=calls.difference(ours.collectives, theirs.collectives),
        nodes=nodes_difference(ours, theirs),
        tensors=tensor_changes(ours, theirs),
        memory_bytes=memory if memory[0] != memory[1] else None,
        graph_kind=kinds if kinds[0] != kinds[1] else None,
    )
    return None if difference == _unchanged(name) else difference


def _unchanged(name: _Name) -> GraphDifference:
    return GraphDifference(graph=_text(name), change=Change.CHANGED)
