"""The nodes of real CUDA graphs, asked of the real driver. Figures go to a file, see test_cost."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
import torch

from graphguard import BatchDescriptor, Session, _core, graphs, record
from graphguard.graphs.contents import contents_of_handle, contents_of_stream
from graphguard.nodes import GraphNode
from tests.distributed.ranks import run
from tests.gpu.test_cost import host_microseconds, keep

BATCH = BatchDescriptor.of(16, 2)


@pytest.fixture(autouse=True)
def _no_gradients() -> Iterator[None]:
    with torch.no_grad():
        yield


@pytest.fixture
def x() -> torch.Tensor:
    return torch.randn(64, 128, device="cuda")


def recorded(step: Callable[[], object], session: Session) -> tuple[GraphNode, ...]:
    step()
    graph = graphs.new()
    with record("target", BATCH, session=session) as recording:
        with graphs.capture(graph):
            step()
        recording.captured(graph)
    assert len(recording.signature.nodes) == 32
    return recording.signature.graph_nodes


def test_the_driver_is_there() -> None:
    assert _core.cuda_driver_absence() == ""


def test_a_capture_has_an_id_while_it_runs() -> None:
    graph = graphs.new()
    stream = torch.cuda.current_stream().cuda_stream
    assert _core.capture_id(stream) == 0
    with graphs.capture(graph):
        capturing = torch.cuda.current_stream().cuda_stream
        captured = _core.capture_id(capturing)
        torch.ones(4, device="cuda").add_(1)
    assert captured != 0
    assert _core.capture_id(capturing) == 0


def test_kernels_are_recorded_with_names_and_extents(x: torch.Tensor, session: Session) -> None:
    nodes = recorded(lambda: torch.relu(torch.relu(x + 1)), session)
    assert sum(node.count for node in nodes) == 3
    assert {node.kind for node in nodes} == {"kernel"}
    for node in nodes:
        assert "elementwise" in node.name
        assert node.grid is not None
        assert node.block is not None
        assert min(node.block) >= 1
        assert node.parameter_bytes


def test_copies_and_fills_are_recorded(x: torch.Tensor, session: Session) -> None:
    y = torch.empty_like(x)
    nodes = recorded(lambda: (y.copy_(x), torch.cuda.current_stream()), session)
    assert [(node.kind, node.parameter_bytes) for node in nodes] == [("memcpy", (x.nbytes,))]


def test_equal_captures_have_equal_digests_and_others_have_others(
    x: torch.Tensor, session: Session
) -> None:
    first = recorded(lambda: torch.relu(x + 1), session)
    again = recorded(lambda: torch.relu(x + 1), session)
    other = recorded(lambda: torch.relu(x[:1] + 1), session)
    assert first == again
    assert first != other


def test_a_graph_is_the_same_before_and_after_its_capture_ends(x: torch.Tensor) -> None:
    graph = torch.cuda.CUDAGraph(keep_graph=True)
    torch.relu(x @ x.T)
    with torch.cuda.graph(graph):
        torch.relu(x @ x.T)
        during = contents_of_stream(torch.cuda.current_stream().cuda_stream)
    after = contents_of_handle(graph.raw_cuda_graph())
    assert during == after
    assert after.nodes


def test_looking_leaves_the_graph_as_it_is(x: torch.Tensor, session: Session) -> None:
    def captured(looks: bool) -> torch.cuda.CUDAGraph:
        graph = torch.cuda.CUDAGraph(keep_graph=True)
        with torch.cuda.graph(graph):
            for _ in range(50):
                torch.relu(x + 1)
            if looks:
                contents_of_stream(torch.cuda.current_stream().cuda_stream)
        return graph

    torch.relu(x + 1)
    plain, looked_at = captured(False), captured(True)
    before, after = (contents_of_handle(g.raw_cuda_graph()) for g in (plain, looked_at))
    assert before == after
    for graph in (plain, looked_at):
        graph.instantiate()
    keep(
        "launch-100-nodes-looked-at",
        host_microseconds({"plain": plain.replay, "looked at": looked_at.replay}),
    )


def test_two_ranks_on_one_device_have_nccl_s_kernels(tmp_path: Path) -> None:
    version = torch.cuda.nccl.version()
    if version < (2, 30):
        pytest.skip(f"NCCL {version} takes no two ranks on one device; 2.30 is the first")
    results = run(
        "gpu_node_programs:nccl_nodes",
        2,
        tmp_path,
        NCCL_MULTI_RANK_GPU_ENABLE="1",
        NCCL_NVLS_ENABLE="0",
        NCCL_MAX_CTAS="2",
    )
    for result in results:
        assert result["calls"] == ["all_reduce", "all_gather", "all_reduce"]
        names = {name for name, _ in result["kernels"]}
        assert any("AllReduce" in name for name in names)
        assert any("AllGather" in name for name in names)
        assert sum(count for _, count in result["kernels"]) == 3
        assert result["unseen"] == []
        assert result["unseen without calls"] == 3


@pytest.mark.parametrize("kernels", [100, 3000])
def test_cost_of_a_look(kernels: int, x: torch.Tensor) -> None:
    graph = torch.cuda.CUDAGraph(keep_graph=True)
    x.add_(1)
    with torch.cuda.graph(graph):
        for _ in range(kernels):
            x.add_(1)
    handle = graph.raw_cuda_graph()
    taken = []
    for _ in range(20):
        began = time.perf_counter_ns()
        _core.walk_graph(handle)
        walked = time.perf_counter_ns()
        found = contents_of_handle(handle)
        ended = time.perf_counter_ns()
        taken.append((walked - began, ended - walked))
    assert sum(node.count for node in found.nodes) == kernels
    figures = {
        name: {"min": min(times) / 1e3, "median": sorted(times)[len(times) // 2] / 1e3}
        for name, times in zip(
            ("walk", "counted and digested"), zip(*taken, strict=True), strict=True
        )
    }
    keep(f"look-{kernels}-nodes", figures)
