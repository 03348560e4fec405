"""Graphs of cuda-core, with a stand-in for its builder: this needs no GPU and no cuda-core."""

from __future__ import annotations

from typing import Any

import pytest
import torch

from graphguard import BatchDescriptor, CaptureError, Session, SignatureTable
from graphguard.graphs import cuda_core
from graphguard.graphs.cuda_core import CudaCoreGraph, building

BATCH = BatchDescriptor.of(4, 2)


class Completed:
    """Stands in for ``cuda.core.graph.Graph``."""

    def __init__(self) -> None:
        self.launched_on: list[Any] = []
        self.closed = False

    def launch(self, stream: Any) -> None:
        self.launched_on.append(stream)

    def close(self) -> None:
        self.closed = True


class Definition:
    # One that means something would be looked into where there is a driver.
    handle = 0


class Builder:
    """Stands in for ``cuda.core.graph.GraphBuilder``."""

    stream = "the stream of the builder"

    def __init__(self) -> None:
        self.told: list[Any] = []
        self.graph_definition = Definition()

    def begin_building(self, mode: str = "relaxed") -> Builder:
        self.told.append(("begin", mode))
        return self

    def end_building(self) -> Builder:
        self.told.append("end")
        return self

    def complete(self, options: Any = None) -> Completed:
        self.told.append(("complete", options))
        return Completed()


def test_a_graph_that_is_built_becomes_a_signature(session: Session) -> None:
    builder, table, x = Builder(), SignatureTable(), torch.zeros(8)
    with building(
        builder, "target", BATCH, session=session, table=table, build_mode="global", options="o"
    ) as made:
        assert made.builder is builder
        made.inputs, made.outputs = {"x": x}, x + 1

    assert builder.told == [("begin", "global"), "end", ("complete", "o")]
    (signature,) = session.signatures
    assert made.signature is signature
    assert str(signature) == "target/full 4x2"
    assert signature.graph_kind == "graphguard.graphs.cuda_core.CudaCoreGraph"
    assert [spec.name for spec in signature.tensors] == ["x", "output"]
    assert len(table) == 1


def test_it_is_replayed_on_its_stream_until_it_is_reset(session: Session) -> None:
    with building(Builder(), "target", BATCH, session=session, stream="mine") as made:
        pass
    graph = made.graph
    graph.replay()
    completed = graph.captured
    assert completed.launched_on == ["mine"]

    graph.reset()
    graph.reset()

    assert completed.closed
    with pytest.raises(CaptureError, match="after it was reset"):
        graph.replay()


def test_without_a_stream_it_is_replayed_on_that_of_the_builder(session: Session) -> None:
    with building(Builder(), "target", BATCH, session=session) as made:
        pass
    made.graph.replay()

    assert made.graph.captured.launched_on == [Builder.stream]


def test_the_handle_is_that_of_what_was_captured_until_it_is_reset() -> None:
    graph = CudaCoreGraph(Completed(), "stream", 0x5000)
    assert graph.raw_cuda_graph() == 0x5000

    graph.reset()

    assert graph.raw_cuda_graph() == 0


def test_a_block_that_fails_ends_the_building_and_keeps_nothing(session: Session) -> None:
    builder = Builder()
    with (
        pytest.raises(ZeroDivisionError),
        building(builder, "target", BATCH, session=session) as made,
    ):
        _ = 1 / 0

    assert builder.told == [("begin", "relaxed"), "end"]
    assert session.signatures == []
    with pytest.raises(CaptureError, match="not complete yet"):
        _ = made.graph


def test_a_builder_that_does_not_tell_its_graph_has_no_handle(session: Session) -> None:
    builder = Builder()
    del builder.graph_definition
    with building(builder, "target", BATCH, session=session) as made:
        pass

    assert isinstance(made.graph, CudaCoreGraph)
    assert made.graph.raw_cuda_graph() == 0


def test_the_real_cuda_core_has_this_surface() -> None:
    graph: Any = pytest.importorskip("cuda.core.graph", reason="cuda-core is not installed")
    for stand_in, real in ((Builder, graph.GraphBuilder), (Completed, graph.Graph)):
        names = {name for name in vars(stand_in) if not name.startswith("_")}
        assert names - {"launched_on", "closed", "told"} <= set(dir(real))
    assert hasattr(graph.GraphBuilder, "graph_definition")
    assert hasattr(graph.GraphDefinition, "handle")
    assert cuda_core.CudaCoreGraph is CudaCoreGraph
