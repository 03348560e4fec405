"""Graphs of cupy on a GPU. None of this has been run yet."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import pytest

import graphguard
from graphguard import BatchDescriptor, Captured, Session, guard
from graphguard.installation import Installation

cupy: Any = pytest.importorskip("cupy", reason="cupy is not installed")


@pytest.fixture
def installed(session: Session) -> Iterator[Installation]:
    yield graphguard.install("observe", session)
    graphguard.uninstall()


def test_a_graph_is_captured_and_replayed_by_the_decorator(session: Session) -> None:
    from graphguard.graphs.cupy import CupyGraph

    stream = cupy.cuda.Stream(non_blocking=True)
    x = cupy.arange(64, dtype=cupy.float32)
    out = cupy.empty_like(x)

    def make(batch: BatchDescriptor) -> Captured:
        graph = CupyGraph()
        with graphguard.capture(graph, stream=stream):
            cupy.multiply(x, 2, out=out)
        return Captured(graph, outputs=out)

    cupy.multiply(x, 2, out=out)
    stream.synchronize()
    guarded = guard("target", session=session, mode="enforce", on_divergence="raise")(make)
    guarded.warm_up([BatchDescriptor.of(4, 2)])
    out.fill(0)
    with stream:
        guarded(BatchDescriptor.of(4, 2))
    stream.synchronize()

    assert bool((out == x * 2).all())
    assert session.signatures[0].graph_kind == "cupy"
    assert [node.kind for node in session.signatures[0].graph_nodes] == ["kernel"]


@pytest.mark.usefixtures("installed")
def test_a_program_that_captures_by_itself_is_seen(session: Session) -> None:
    stream = cupy.cuda.Stream(non_blocking=True)
    x = cupy.arange(64, dtype=cupy.float32)
    out = cupy.empty_like(x)
    cupy.add(x, 1, out=out)
    with stream:
        stream.begin_capture()
        cupy.add(x, 1, out=out)
        graph = stream.end_capture()
    out.fill(0)
    graph.launch(stream)
    stream.synchronize()

    assert bool((out == x + 1).all())
    (signature,) = session.signatures
    assert signature.graph_kind == "cupy"
    assert [node.kind for node in signature.graph_nodes] == ["kernel"]


@pytest.mark.usefixtures("installed")
def test_a_call_of_nccl_is_in_the_signature(session: Session) -> None:
    from cupy.cuda import nccl

    communicator = nccl.NcclCommunicator(1, nccl.get_unique_id(), 0)
    stream = cupy.cuda.Stream(non_blocking=True)
    x, out = cupy.ones(64, dtype=cupy.float32), cupy.empty(64, dtype=cupy.float32)
    with stream:
        stream.begin_capture()
        communicator.allReduce(
            x.data.ptr, out.data.ptr, 64, nccl.NCCL_FLOAT, nccl.NCCL_SUM, stream.ptr
        )
        graph = stream.end_capture()
    graph.launch(stream)
    stream.synchronize()

    (call,) = session.signatures[0].collectives
    assert (call.operation, call.count, call.dtype, call.reduction) == (
        "all_reduce",
        64,
        "float32",
        "sum",
    )
