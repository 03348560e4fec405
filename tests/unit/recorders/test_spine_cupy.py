"""The spine on cupy's streams, with a stand-in for cupy: this needs no GPU and no cupy."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any
from unittest import mock

import pytest
import torch

import graphguard
from graphguard import BatchDescriptor, Captured, NestedCapture, Session, _core, guard
from tests.unit.graphs.stand_in_cupy import BaseStream, Graph, stand_in_cupy
from tests.unit.recorders.graph_libraries import Library
from tests.unit.recorders.spine_behaviour import *  # noqa: F403
from tests.unit.recorders.spine_fixtures import Install, box, install
from tests.unit.recorders.spine_launches import *  # noqa: F403

__all__ = ["box", "install"]


class Cupy(Library):
    """Captures through ``graphguard.graphs.cupy.capture``."""

    has_pools = has_modes = False

    def __init__(self, cupy: Any) -> None:
        from graphguard.graphs.cupy import CupyGraph
        from graphguard.recorders.spine_cupy import CupyAdapter

        super().__init__(
            "cupy", CupyGraph, lambda: CupyAdapter(cupy.cuda.stream._BaseStream, cupy.cuda.nccl)
        )
        self._invalid = False

    def invalidate(self, graph: Any, invalid: bool) -> None:
        self._invalid = invalid

    @contextmanager
    def capture(self, graph: Any, **options: Any) -> Iterator[None]:
        stream = BaseStream()
        stream.invalidated = self._invalid
        with graphguard.capture(graph, stream=stream, **options):
            yield


@pytest.fixture
def cupy() -> Iterator[Any]:
    with stand_in_cupy() as cupy:
        yield cupy


@pytest.fixture
def library(cupy: Any) -> Library:
    return Cupy(cupy)


def test_a_program_that_captures_by_itself_is_seen(
    library: Library, install: Install, session: Session
) -> None:
    install()
    stream, other = BaseStream(), BaseStream()
    with stream:
        stream.begin_capture()
        graph = stream.end_capture()
    graph.launch(other)

    (signature,) = session.signatures
    assert signature.graph_kind == "cupy"
    assert signature.key.variant == "pool0.0"
    assert type(graph).__name__ == "CupyGraph"
    assert (graph.launches, graph.launched_on) == (1, other)


def test_without_the_installation_cupy_returns_its_own_graph(cupy: Any) -> None:
    stream = BaseStream()
    stream.begin_capture()

    assert type(stream.end_capture()) is Graph


def test_graphs_of_cupy_can_be_guarded(library: Library, session: Session) -> None:
    def make(batch: BatchDescriptor) -> Captured:
        graph = library.captured()
        return Captured(graph, outputs=torch.zeros(batch.num_tokens))

    guarded = guard("target", session=session, mode="enforce", on_divergence="raise")(make)
    guarded.warm_up([BatchDescriptor.of(4, 2)])
    out = guarded(BatchDescriptor.of(4, 2))

    assert out.shape == (8,)
    assert session.signatures[0].graph_kind == "cupy"


def test_captures_of_one_stream_do_not_nest(library: Library) -> None:
    stream = BaseStream()
    with (
        pytest.raises(NestedCapture, match="stream of cupy that is being captured"),
        graphguard.capture(library.new(), stream=stream),
        graphguard.capture(library.new(), stream=stream),
    ):
        pass


def test_calls_on_communicators_of_cupy_are_in_the_signature(
    cupy: Any, library: Library, install: Install, session: Session
) -> None:
    install()
    communicator = cupy.cuda.nccl.NcclCommunicator(2, tuple(range(128)), 1)
    graph = library.captured(lambda: communicator.allGather(1, 2, 128, 7, 0))

    (call,) = session.signatures[0].collectives
    assert str(call).startswith("all_gather(128 float32) on cupy:")
    assert (call.group_rank, call.group_size, call.seen_by) == (1, 2, "cupy")
    assert graph is not None


@pytest.mark.parametrize("by_itself", [True, False], ids=["by itself", "by graphguard"])
def test_a_graph_is_looked_into_before_its_capture_ends(
    library: Library, install: Install, session: Session, by_itself: bool
) -> None:
    """Afterwards cupy has it no more. The driver is a stand-in's here: it knows one capture."""
    install()
    stream = BaseStream()
    asked: list[int] = []

    def capture_of(handle: int) -> tuple[int, int, int]:
        assert stream.is_capturing()
        asked.append(handle)
        return 1, 0xC0DE, 1

    kernel = ("kernel", "add", (1, 1, 1), (64, 1, 1), 0, (8,), 1)
    with (
        mock.patch.object(_core, "capture_of", capture_of),
        mock.patch.object(_core, "walk_graph", return_value=([kernel], 0, "")),
    ):
        if by_itself:
            stream.begin_capture()
            graph: Any = stream.end_capture()
        else:
            graph = library.new()
            with graphguard.capture(graph, stream=stream):
                pass

    assert asked == [stream.ptr]
    assert [node.name for node in session.signatures[0].graph_nodes] == ["add"]
    assert graph is not None
