"""Graphs of a class like torch's, whose captures get marks and whose launches are counted."""

from __future__ import annotations

from pathlib import Path

import pytest

from graphguard.batch import BatchDescriptor
from graphguard.breadcrumbs import telling
from graphguard.breadcrumbs.marking import CudaMarker, describe, marks_of
from graphguard.breadcrumbs.process import Breadcrumbs, open_breadcrumbs
from graphguard.graphs.contents import kept
from graphguard.recorders import graph_marks, graph_nodes
from graphguard.signature import CollectiveCall, GraphKey, Signature
from graphguard.watch.breadcrumbs import CrumbState, read_breadcrumbs
from tests.native.fake_driver import FakeDriver

STREAM = 7
KERNELS = ("ncclDevKernel_AllReduce_Sum_f16_RING_LL", "matmul", "ncclDevKernel_AllGather_RING_LL")


class Torch:
    """Graphs like torch's on a stand-in for the driver."""

    def __init__(self, fake: FakeDriver) -> None:
        torch = self
        self.fake = fake
        self.refuses: Exception | None = None
        self.does_not_end: Exception | None = None
        self.stuck = False

        class CUDAGraph:
            handle = 0

            def capture_begin(self) -> None:
                assert fake.calls("cuModuleLoadData") in {0, 1}
                self.handle = fake.graph()
                fake.capture(STREAM, 42, self.handle)
                for name in KERNELS:
                    fake.add_kernel(self.handle, fake.function(name))
                for place in range(2):
                    before, after = (fake.node(self.handle, place + i) for i in (0, 1))
                    fake.add_edge(before, after)

            def capture_end(self) -> None:
                fake.capture(STREAM, 0, 0, 0)
                if torch.does_not_end is not None:
                    raise torch.does_not_end

            def replay(self) -> None:
                if torch.refuses is not None:
                    raise torch.refuses
                fake.run(self.handle, fake.node(self.handle, 2) if torch.stuck else 0)

            def reset(self) -> None:
                self.handle = 0

        self.graph_class = CUDAGraph
        self.plain_replay = CUDAGraph.replay

    def capture(self, graph: object = None) -> object:
        graph = graph or self.graph_class()
        graph.capture_begin()  # type: ignore[attr-defined]
        graph.capture_end()  # type: ignore[attr-defined]
        return graph


@pytest.fixture
def crumbs(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, fake: FakeDriver) -> Breadcrumbs:
    fake.load()
    crumbs = open_breadcrumbs(tmp_path)
    marker = CudaMarker(crumbs, str(fake.library))
    monkeypatch.setattr(telling, "_told", set())
    monkeypatch.setattr(graph_marks, "_process_marker", lambda: marker)
    monkeypatch.setattr(graph_marks, "_stopped", False)
    monkeypatch.setattr(graph_nodes, "_watchers", 1)
    monkeypatch.setenv("GRAPHGUARD_BREADCRUMBS", "1")
    return crumbs


@pytest.fixture
def torch(fake: FakeDriver, crumbs: Breadcrumbs) -> Torch:
    torch = Torch(fake)
    graph_nodes.watch_class(torch.graph_class, lambda: STREAM, fake.load())
    return torch


def only(crumbs: Breadcrumbs) -> CrumbState:
    (state,) = read_breadcrumbs(crumbs.path)
    return state


def test_a_capture_gets_its_marks_and_its_launches_are_counted(
    torch: Torch, crumbs: Breadcrumbs, fake: FakeDriver
) -> None:
    graph = torch.capture()
    contents = kept(graph)
    assert contents is not None
    assert {node.name for node in contents.nodes} == set(KERNELS)
    assert fake.num_nodes(graph.handle) == 5  # type: ignore[attr-defined]

    graph.replay()  # type: ignore[attr-defined]
    assert (only(crumbs).launched, only(crumbs).finished) == (1, 1)
    torch.stuck = True
    graph.replay()  # type: ignore[attr-defined]
    assert (only(crumbs).in_flight, only(crumbs).reached) == (1, 1)


def test_what_was_recorded_names_the_calls(torch: Torch, crumbs: Breadcrumbs) -> None:
    graph = torch.capture()
    signature = Signature(
        GraphKey("target"),
        BatchDescriptor.of(4, 2),
        collectives=(call("all_reduce", 4096), call("all_gather", 8)),
    )
    describe(graph, signature)
    torch.stuck = True
    graph.replay()  # type: ignore[attr-defined]
    state = only(crumbs)
    assert state.graph == "target/full 4x2"
    assert state.digest == int(signature.shared_digest[:16], 16)
    assert state.next_call == "all_gather of 8 float16 over tp:0[0-1]"


def test_calls_that_do_not_fit_the_kernels_are_not_named(torch: Torch, crumbs: Breadcrumbs) -> None:
    graph = torch.capture()
    for calls in ((call("all_gather", 8), call("all_reduce", 8)), (call("all_reduce", 8),)):
        describe(graph, Signature(GraphKey("a"), BatchDescriptor.of(4, 2), collectives=calls))
        marks = marks_of(graph)
        assert marks is not None
        marks.launch()
        assert only(crumbs).next_call == KERNELS[0]


def test_after_a_capture_with_marks_that_could_not_be_ended_no_graph_gets_any(
    torch: Torch, crumbs: Breadcrumbs, caplog: pytest.LogCaptureFixture
) -> None:
    torch.does_not_end = RuntimeError("unjoined work")
    with pytest.raises(RuntimeError, match="unjoined work"):
        torch.capture()
    assert read_breadcrumbs(crumbs.path) == ()
    assert caplog.text.count("unjoined work") == 1
    torch.does_not_end = None
    graph = torch.capture()
    assert torch.fake.num_nodes(graph.handle) == len(KERNELS)  # type: ignore[attr-defined]
    graph.replay()  # type: ignore[attr-defined]
    assert read_breadcrumbs(crumbs.path) == ()


def test_a_launch_that_fails_is_none(torch: Torch, crumbs: Breadcrumbs) -> None:
    graph = torch.capture()
    torch.refuses = RuntimeError("no")
    with pytest.raises(RuntimeError, match="no"):
        graph.replay()  # type: ignore[attr-defined]
    assert (only(crumbs).launched, only(crumbs).in_flight) == (0, 0)


def test_a_graph_that_is_reset_collected_or_captured_again_is_followed_no_more(
    torch: Torch, crumbs: Breadcrumbs
) -> None:
    first, second, third = (torch.capture() for _ in range(3))
    for graph in (first, second, third):
        graph.replay()  # type: ignore[attr-defined]
    assert len(read_breadcrumbs(crumbs.path)) == 3
    first.reset()  # type: ignore[attr-defined]
    del second
    torch.capture(third)
    del graph
    assert (only(crumbs).launched, only(crumbs).finished) == (0, 0)


def test_without_marks_the_class_keeps_its_launches(
    fake: FakeDriver, crumbs: Breadcrumbs, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("GRAPHGUARD_BREADCRUMBS", "0")
    torch = Torch(fake)
    graph_nodes.watch_class(torch.graph_class, lambda: STREAM, fake.load())
    graph = torch.capture()
    assert torch.graph_class.replay is torch.plain_replay
    assert fake.num_nodes(graph.handle) == 3  # type: ignore[attr-defined]
    assert read_breadcrumbs(crumbs.path) == ()


def test_a_setting_that_cannot_be_meant_counts_as_none(
    fake: FakeDriver,
    crumbs: Breadcrumbs,
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
) -> None:
    monkeypatch.setenv("GRAPHGUARD_BREADCRUMBS", "sometimes")
    torch = Torch(fake)
    graph_nodes.watch_class(torch.graph_class, lambda: STREAM, fake.load())
    torch.capture().replay()  # type: ignore[attr-defined]
    assert read_breadcrumbs(crumbs.path) == ()
    assert caplog.text.count("GRAPHGUARD_BREADCRUMBS") == 1


def call(operation: str, count: int) -> CollectiveCall:
    return CollectiveCall(operation, count, "float16", "sum", None, None, "tp:0[0-1]", 2, 0)
