"""What vLLM's wrappers captured of one model, until it becomes signatures.

A step with a piecewise graph launches many graphs, one for each piece between the attention calls.
What is recorded of all pieces for one size is one signature, since they are launched as one step.
"""

from __future__ import annotations

import weakref
from collections.abc import Hashable, Mapping
from typing import Any, NamedTuple

from graphguard import graphs
from graphguard.batch import BatchDescriptor
from graphguard.breadcrumbs.marking import Marks, describe_marks, marks_of
from graphguard.breadcrumbs.process import wanted
from graphguard.digest import digest, encode
from graphguard.graphs.tensors import input_specs, output_specs
from graphguard.nodes import GraphNode, counted
from graphguard.signature import CollectiveCall, GraphKey, Signature, TensorSpec


class Choice(NamedTuple):
    """What vLLM chooses for a step.

    Attributes:
        mode: The name of vLLM's mode: ``FULL`` or ``PIECEWISE``.
        descriptor: vLLM's own descriptor of the graph.
    """

    mode: str
    descriptor: Hashable


class Piece(NamedTuple):
    """What was recorded of one captured graph."""

    calls: tuple[CollectiveCall, ...]
    inputs: tuple[TensorSpec, ...]
    outputs: tuple[TensorSpec, ...]
    kind: str
    nodes: str
    graph_nodes: tuple[GraphNode, ...] = ()
    marks: Marks | None = None


class Captures:
    """The captures of one model, in their order."""

    def __init__(self) -> None:
        self._pieces: dict[Choice, list[tuple[weakref.ref[Any], Piece]]] = {}

    def __len__(self) -> int:
        return len(self._pieces)

    def add(self, wrapper: object, choice: Choice, piece: Piece) -> None:
        """Keep what was recorded of a graph, for as long as its wrapper keeps the graph."""
        self._pieces.setdefault(choice, []).append((weakref.ref(wrapper), piece))

    def drop(self, wrapper: object) -> None:
        """Forget what a wrapper has captured: vLLM throws its first captures away."""
        for choice, pieces in list(self._pieces.items()):
            kept = [(owner, piece) for owner, piece in pieces if owner() is not wrapper]
            if kept:
                self._pieces[choice] = kept
            else:
                del self._pieces[choice]

    def forget(self, choice: Choice) -> None:
        """Forget what was captured for a choice, which is about to be captured again."""
        self._pieces.pop(choice, None)

    def owners(self, choice: Choice) -> list[Any]:
        """Return what holds the graphs that were captured for a choice."""
        owners = [owner() for owner, _ in self._pieces.get(choice, ())]
        return [owner for owner in owners if owner is not None]

    def signature(self, choice: Choice, key: GraphKey, batch: BatchDescriptor) -> Signature:
        """Return the signature of what was captured for a choice."""
        pieces = [piece for _, piece in self._pieces[choice]]
        signature = signature_of(key, batch, pieces)
        _describe_marks(pieces, signature)
        return signature

    @property
    def choices(self) -> tuple[Choice, ...]:
        """What graphs were captured for, in the order of capture."""
        return tuple(self._pieces)


def piece_of(
    graph: graphs.Graph,
    calls: tuple[CollectiveCall, ...],
    inputs: Mapping[str, Any],
    outputs: object,
) -> Piece:
    """Describe one captured graph."""
    return Piece(
        calls,
        input_specs(inputs),
        output_specs(outputs),
        graphs.kind_of(graph),
        graphs.nodes_of(graph),
        graphs.graph_nodes_of(graph),
        marks_of(graph) if wanted() else None,
    )


def _describe_marks(pieces: list[Piece], signature: Signature) -> None:
    """Say of the marks of each piece what they are of, by the name of the step."""
    for number, piece in enumerate(pieces, 1):
        if piece.marks is not None:
            place = f", piece {number} of {len(pieces)}" if len(pieces) > 1 else ""
            describe_marks(piece.marks, signature, piece.calls, place)


def signature_of(key: GraphKey, batch: BatchDescriptor, pieces: list[Piece]) -> Signature:
    """Put the pieces of one step together. Of several, the first one's inputs are the step's."""
    first, last = pieces[0], pieces[-1]
    nodes = [piece.nodes for piece in pieces]
    return Signature(
        key=key,
        batch=batch,
        tensors=first.inputs + last.outputs,
        num_inputs=len(first.inputs),
        collectives=tuple(call for piece in pieces for call in piece.calls),
        graph_kind=first.kind,
        nodes=nodes[0] if len(nodes) == 1 else digest(encode(node) for node in nodes),
        graph_nodes=counted(node for piece in pieces for node in piece.graph_nodes),
    )
