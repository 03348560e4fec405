"""What was captured of a model, until it becomes signatures."""

from __future__ import annotations

from pathlib import Path

import torch

from graphguard.batch import BatchDescriptor
from graphguard.breadcrumbs.marking import Marks
from graphguard.breadcrumbs.process import open_breadcrumbs
from graphguard.graphs.contents import GraphContents, keep
from graphguard.graphs.emulated import EmulatedGraph, capture
from graphguard.nodes import GraphNode
from graphguard.signature import GraphKey, GraphMode
from graphguard.vllm.captures import Captures, Choice, Piece, piece_of
from graphguard.watch.breadcrumbs import read_breadcrumbs
from tests.unit.audit.jobs import call

PIECEWISE = GraphKey("drafter", GraphMode.PIECEWISE)
CHOICE, OTHER = Choice("PIECEWISE", 32), Choice("PIECEWISE", 16)
REDUCE, GATHER = call("all_reduce", 64), call("all_gather", 16)


class Wrapper:
    """Stands for vLLM's wrapper, which keeps captured graphs."""


def piece(*calls: object, nodes: str = "") -> Piece:
    return Piece(calls, (), (), "emulated", nodes)  # type: ignore[arg-type]


def test_the_pieces_of_a_step_are_one_signature_in_their_order() -> None:
    captures, first, second = Captures(), Wrapper(), Wrapper()
    captures.add(first, CHOICE, piece(REDUCE, nodes="a"))
    captures.add(first, OTHER, piece())
    captures.add(second, CHOICE, piece(GATHER, REDUCE, nodes="b"))

    signature = captures.signature(CHOICE, PIECEWISE, BatchDescriptor.tokens(32))

    assert captures.choices == (CHOICE, OTHER)
    assert signature.collectives == (REDUCE, GATHER, REDUCE)
    assert signature.nodes not in ("", "a", "b")


def test_what_a_wrapper_throws_away_is_forgotten() -> None:
    captures, thrown, kept = Captures(), Wrapper(), Wrapper()
    captures.add(thrown, OTHER, piece())
    captures.add(thrown, CHOICE, piece(REDUCE))
    captures.add(kept, CHOICE, piece(GATHER))

    captures.drop(thrown)

    assert captures.choices == (CHOICE,)
    signature = captures.signature(CHOICE, PIECEWISE, BatchDescriptor.tokens(32))
    assert signature.collectives == (GATHER,)


def test_a_piece_says_what_was_captured() -> None:
    graph, tokens = EmulatedGraph(), torch.zeros(4)
    with capture(graph):
        out = tokens + 1

    found = piece_of(graph, (REDUCE,), {"tokens": tokens}, {"hidden": out})

    assert [(spec.name, spec.shape) for spec in found.inputs] == [("tokens", (4,))]
    assert [spec.name for spec in found.outputs] == ["output.hidden"]
    assert (found.kind, found.nodes) == ("emulated", graph.nodes)


def test_nodes_of_all_pieces_are_counted_together() -> None:
    captures, wrapper = Captures(), Wrapper()
    for nodes in ((GraphNode("kernel", "add"),), (GraphNode("empty"), GraphNode("kernel", "add"))):
        graph = EmulatedGraph()
        keep(graph, GraphContents(nodes))
        captures.add(wrapper, CHOICE, piece_of(graph, (), {}, ()))

    signature = captures.signature(CHOICE, PIECEWISE, BatchDescriptor.tokens(32))

    assert signature.graph_nodes == (GraphNode("empty"), GraphNode("kernel", "add", count=2))


def test_marks_of_each_piece_are_named_by_the_step_and_its_own_calls(tmp_path: Path) -> None:
    crumbs = open_breadcrumbs(tmp_path)
    captures, wrapper = Captures(), Wrapper()
    launched = []
    for calls in ((REDUCE,), (GATHER, REDUCE)):
        native = crumbs.native.add(["kernel"] * len(calls), 0, 0)
        assert native is not None
        captures.add(wrapper, CHOICE, piece(*calls)._replace(marks=Marks(native)))
        launched.append(native)

    signature = captures.signature(CHOICE, PIECEWISE, BatchDescriptor.tokens(32))

    for native in launched:
        native.launch()
    first, second = read_breadcrumbs(crumbs.path)
    assert first.graph == "drafter/piecewise 32t, piece 1 of 2"
    assert second.graph == "drafter/piecewise 32t, piece 2 of 2"
    assert first.digest == second.digest == int(signature.shared_digest[:16], 16)
    assert first.next_call.startswith("all_reduce of 64")
    assert second.next_call.startswith("all_gather of 16")
