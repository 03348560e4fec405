"""Marks in graphs of a stand-in for the CUDA driver: the nodes, what they do, and every refusal."""

from __future__ import annotations

from pathlib import Path

import pytest

from graphguard.breadcrumbs import telling
from graphguard.breadcrumbs.marking import (
    HOST,
    KERNEL,
    MEMOP,
    MEMSET,
    CudaMarker,
    Marks,
    marks_of,
    release,
)
from graphguard.breadcrumbs.process import Breadcrumbs, open_breadcrumbs
from graphguard.graphs.contents import contents_of_handle
from graphguard.watch.breadcrumbs import CrumbState, breadcrumbs_in, read_breadcrumbs
from tests.native.fake_driver import FakeDriver

ALL_REDUCE = "ncclDevKernel_AllReduce_Sum_f16_RING_LL(ncclDevKernelArgsStorage<4096ul>)"
ALL_GATHER = "ncclDevKernel_AllGather_RING_LL(ncclDevKernelArgsStorage<4096ul>)"
STREAM = 7


class Graph:
    """Stands in for a graph of torch: something that marks are kept on."""


@pytest.fixture
def crumbs(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Breadcrumbs:
    monkeypatch.setattr(telling, "_told", set())
    return open_breadcrumbs(tmp_path)


@pytest.fixture
def marker(fake: FakeDriver, crumbs: Breadcrumbs) -> CudaMarker:
    fake.load()
    return CudaMarker(crumbs, str(fake.library))


class Capture:
    """A graph that is being captured: matmul, all-reduce, matmul, all-gather, matmul, in a row."""

    def __init__(self, fake: FakeDriver, marker: CudaMarker) -> None:
        self.fake = fake
        self.marker = marker
        self.graph = fake.graph()
        self.owner = Graph()
        matmul, reduce, gather = map(fake.function, ("matmul", ALL_REDUCE, ALL_GATHER))
        for function in (matmul, reduce, matmul, gather, matmul):
            fake.add_kernel(self.graph, function)
        for place in range(4):
            fake.add_edge(fake.node(self.graph, place), fake.node(self.graph, place + 1))
        self.reduce, self.gather = fake.node(self.graph, 1), fake.node(self.graph, 3)
        fake.capture(STREAM, 42, self.graph)

    def mark(self, kind: int = KERNEL) -> None:
        self.marker.mark(self.owner, self.graph, 2, kind)

    @property
    def marks(self) -> Marks:
        marks = marks_of(self.owner)
        assert marks is not None
        return marks

    def launch(self, stuck: int = 0) -> None:
        self.marks.launch()
        self.fake.run(self.graph, stuck)


@pytest.fixture
def capture(fake: FakeDriver, marker: CudaMarker) -> Capture:
    return Capture(fake, marker)


def only(crumbs: Breadcrumbs) -> CrumbState:
    (state,) = read_breadcrumbs(crumbs.path)
    return state


@pytest.mark.parametrize("kind", [KERNEL, HOST])
def test_a_leaf_behind_each_collective_counts_replays(
    fake: FakeDriver, marker: CudaMarker, crumbs: Breadcrumbs, capture: Capture, kind: int
) -> None:
    marker.mark(capture.owner, capture.graph, 2, kind)

    assert fake.num_nodes(capture.graph) == 7
    for place, collective in ((5, capture.reduce), (6, capture.gather)):
        node = fake.node(capture.graph, place)
        assert fake.depends(node, collective)
        assert fake.is_leaf(node)
    for replay in range(1, 4):
        capture.launch()
        state = only(crumbs)
        assert (state.launched, state.finished, state.reached) == (replay, replay, 0)


@pytest.mark.parametrize("kind", [KERNEL, HOST])
@pytest.mark.parametrize("before", [0, 3])
def test_a_replay_that_stands_still_is_named_with_its_call(
    marker: CudaMarker, crumbs: Breadcrumbs, capture: Capture, kind: int, before: int
) -> None:
    marker.mark(capture.owner, capture.graph, 2, kind)
    for _ in range(before):
        capture.launch()

    capture.launch(stuck=capture.gather)
    capture.marks.launch()

    state = only(crumbs)
    assert (state.launched, state.finished, state.reached) == (before + 2, before, 1)
    assert state.next_call.startswith("ncclDevKernel_AllGather_RING_LL")
    assert state.in_flight == 2
    assert state.exact


@pytest.mark.parametrize("kind", [MEMSET, MEMOP])
def test_constants_tell_the_place_and_not_the_replay(
    fake: FakeDriver, marker: CudaMarker, crumbs: Breadcrumbs, capture: Capture, kind: int
) -> None:
    marker.mark(capture.owner, capture.graph, 2, kind)

    # One node more sets them back, and every leaf waits for it.
    assert fake.num_nodes(capture.graph) == 8
    reset = fake.node(capture.graph, 5)
    for place, collective in ((6, capture.reduce), (7, capture.gather)):
        node = fake.node(capture.graph, place)
        assert fake.depends(node, collective)
        assert fake.depends(node, reset)
        assert fake.is_leaf(node)
    for stuck, finished, reached in ((0, 1, 0), (capture.gather, 1, 1), (0, 3, 0)):
        capture.launch(stuck)
        state = only(crumbs)
        assert (state.finished, state.reached, state.exact) == (finished, reached, False)
    capture.launch(capture.reduce)
    assert (only(crumbs).finished, only(crumbs).reached) == (3, 0)
    assert only(crumbs).next_call.startswith("ncclDevKernel_AllReduce")


def test_looking_before_marking_leaves_the_digest_as_it_is_without(
    fake: FakeDriver, marker: CudaMarker, capture: Capture
) -> None:
    driver = fake.load()
    before = contents_of_handle(capture.graph, driver)
    marker.mark(capture.owner, capture.graph, 2)
    after = contents_of_handle(capture.graph, driver)
    assert before.digest != after.digest
    (added,) = set(after.nodes) - set(before.nodes)
    assert (added.name, added.count) == ("graphguard_mark", 2)


@pytest.mark.parametrize("version", [12_000, 12_020, 12_030, 13_020])
@pytest.mark.parametrize("seed", range(5))
def test_marks_are_in_the_order_of_the_graph_however_the_driver_lists_it(
    fake: FakeDriver, crumbs: Breadcrumbs, capture: Capture, version: int, seed: int
) -> None:
    fake.load(version)
    fake.shuffle(seed)
    CudaMarker(crumbs, str(fake.library)).mark(capture.owner, capture.graph, 2)
    if version < 12_030:
        # Such a driver does not tell names of kernels.
        assert read_breadcrumbs(crumbs.path) == ()
        return
    capture.launch(stuck=capture.gather)
    assert only(crumbs).next_call.startswith("ncclDevKernel_AllGather")


def test_a_graph_without_collectives_gets_no_node(
    fake: FakeDriver, marker: CudaMarker, crumbs: Breadcrumbs
) -> None:
    graph, owner = fake.graph(), Graph()
    fake.add_kernel(graph, fake.function("matmul"))
    marker.mark(owner, graph, 0)
    assert fake.num_nodes(graph) == 1
    assert marks_of(owner) is None
    assert read_breadcrumbs(crumbs.path) == ()


def test_collectives_in_graphs_within_are_told_as_missing(
    fake: FakeDriver, marker: CudaMarker, crumbs: Breadcrumbs, capture: Capture
) -> None:
    marker.mark(capture.owner, capture.graph, 5)
    assert only(crumbs).missing == 3


REFUSED = (
    "cuGraphGetNodes",
    "cuGraphGetEdges",
    "cuCtxGetCurrent",
    "cuMemHostRegister",
    "cuMemHostGetDevicePointer",
    "cuModuleLoadData",
    "cuModuleGetFunction",
    "cuGraphAddKernelNode",
)


@pytest.mark.parametrize("function", REFUSED)
def test_whatever_the_driver_refuses_the_capture_goes_on_without_marks(
    fake: FakeDriver,
    crumbs: Breadcrumbs,
    capture: Capture,
    function: str,
    caplog: pytest.LogCaptureFixture,
) -> None:
    fake.refuse(function)
    for _ in range(2):
        capture.mark()
    assert marks_of(capture.owner) is None
    assert read_breadcrumbs(crumbs.path) == ()
    assert fake.num_nodes(capture.graph) == 5
    assert caplog.text.count("breadcrumbs are missing") == 1

    fake.refuse(function, every=0)
    capture.mark()
    capture.launch()
    assert only(crumbs).finished == 1


@pytest.mark.parametrize(
    ("kind", "function"),
    [
        (KERNEL, "cuGraphAddKernelNode"),
        (MEMSET, "cuGraphAddMemsetNode"),
        (MEMOP, "cuGraphAddBatchMemOpNode"),
        (HOST, "cuGraphAddHostNode"),
    ],
)
def test_a_graph_that_got_some_of_its_marks_has_none_and_its_place_is_lost(
    fake: FakeDriver,
    crumbs: Breadcrumbs,
    capture: Capture,
    kind: int,
    function: str,
) -> None:
    fake.refuse(function, every=2)
    capture.mark(kind)
    assert marks_of(capture.owner) is None
    assert fake.calls(function) == 2
    fake.refuse(function, every=0)

    # The mark that it got counts on, and must not count for another graph.
    other = Capture(fake, capture.marker)
    other.mark()
    fake.run(capture.graph)
    assert (only(crumbs).launched, only(crumbs).finished) == (0, 0)


def test_a_thread_without_a_context_gets_no_marks(
    fake: FakeDriver, marker: CudaMarker, crumbs: Breadcrumbs, capture: Capture
) -> None:
    fake.set_context(0)
    marker.mark(capture.owner, capture.graph, 2)
    assert read_breadcrumbs(crumbs.path) == ()


def test_memory_is_mapped_once_and_the_kernel_loaded_once_for_each_context(
    fake: FakeDriver, marker: CudaMarker, crumbs: Breadcrumbs
) -> None:
    for context in (0x100, 0x200, 0x100):
        fake.set_context(context)
        marker.prepare()
        captured = Capture(fake, marker)
        marker.mark(captured.owner, captured.graph, 2)
        captured.launch()
    assert fake.calls("cuMemHostRegister") == 1
    assert fake.calls("cuModuleLoadData") == 2
    assert only(crumbs).finished == 1


def test_a_graph_that_is_captured_again_has_marks_of_its_new_capture(
    fake: FakeDriver, marker: CudaMarker, crumbs: Breadcrumbs, capture: Capture
) -> None:
    marker.mark(capture.owner, capture.graph, 2)
    capture.launch()
    again = Capture(fake, marker)
    marker.mark(capture.owner, again.graph, 2)

    state = only(crumbs)
    assert (state.launched, state.finished) == (0, 0)
    capture.marks.launch()
    fake.run(again.graph)
    assert (only(crumbs).launched, only(crumbs).finished) == (1, 1)


def test_the_place_of_a_graph_that_stands_still_is_not_used_again(
    fake: FakeDriver, marker: CudaMarker, crumbs: Breadcrumbs, capture: Capture
) -> None:
    marker.mark(capture.owner, capture.graph, 2)
    capture.launch(stuck=capture.gather)
    release(capture.owner)
    other = Capture(fake, marker)
    marker.mark(other.owner, other.graph, 2)

    # What stood still goes on after all.
    fake.run(capture.graph)

    assert (only(crumbs).launched, only(crumbs).finished, only(crumbs).reached) == (0, 0, 0)


def test_a_driver_that_is_not_there_is_told_once(
    crumbs: Breadcrumbs, caplog: pytest.LogCaptureFixture
) -> None:
    marker = CudaMarker(crumbs, "libno-such-driver.so.1")
    for _ in range(2):
        assert not marker.prepare()
        marker.mark(Graph(), 4096, 2)
    assert caplog.text.count("breadcrumbs are missing: no CUDA driver") == 2
    assert breadcrumbs_in(crumbs.path).graphs == ()
