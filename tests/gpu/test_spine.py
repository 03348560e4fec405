"""``graphguard.install()`` with real CUDA graphs. None of this has been run yet."""

from __future__ import annotations

import statistics
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
import torch

import graphguard
from graphguard import BatchDescriptor, GuardMismatch, Session, manifest
from graphguard.graphs.contents import contents_of
from graphguard.installation import Installation
from graphguard.recorders.spine import torch_adapter
from graphguard.recorders.spine_hooks import HookAdapter
from graphguard.recorders.spine_patches import PatchAdapter
from tests.gpu.step import Step


@pytest.fixture(autouse=True)
def _no_gradients() -> Iterator[None]:
    with torch.no_grad():
        yield


@pytest.fixture
def observed(session: Session) -> Iterator[Installation]:
    yield graphguard.install("observe", session)
    graphguard.uninstall()


@pytest.fixture
def enforced(session: Session) -> Iterator[Installation]:
    yield graphguard.install("enforce", session)
    graphguard.uninstall()


def capture(
    body: Callable[[], torch.Tensor], **options: object
) -> tuple[torch.cuda.CUDAGraph, torch.Tensor]:
    body()
    graph = torch.cuda.CUDAGraph()
    with torch.cuda.graph(graph, **options):  # type: ignore[arg-type]
        out = body()
    return graph, out


def test_the_adapter_is_the_one_for_this_torch() -> None:
    version = tuple(map(int, torch.__version__.split(".")[:2]))
    expected = HookAdapter if version >= (2, 14) else PatchAdapter
    assert isinstance(torch_adapter(torch), expected)


@pytest.mark.usefixtures("observed")
def test_captured_graphs_are_named_by_pool_and_order(session: Session) -> None:
    x, pool = torch.ones(64, device="cuda"), torch.cuda.graph_pool_handle()
    kept = [capture(lambda: x + 1, pool=pool), capture(lambda: x * 2, pool=pool)]
    kept.append(capture(lambda: x - 1))
    for graph, _ in kept:
        graph.replay()
    torch.cuda.synchronize()

    variants = [signature.key.variant for signature in session.signatures]
    assert variants == ["pool0.0", "pool0.1", "pool1.0"]
    assert {signature.graph_kind for signature in session.signatures} == {"torch.cuda"}


@pytest.mark.usefixtures("observed")
def test_nodes_of_a_graph_that_torch_does_not_keep_are_recorded(session: Session) -> None:
    x = torch.ones(64, device="cuda")
    kept = capture(lambda: torch.relu(x + 1))

    (signature,) = session.signatures
    assert sum(node.count for node in signature.graph_nodes if node.kind == "kernel") == 2
    assert signature.nodes
    assert kept


def test_recording_does_not_change_the_graph(session: Session) -> None:
    x = torch.ones(64, device="cuda")

    def nodes() -> tuple[object, ...]:
        graph = torch.cuda.CUDAGraph(keep_graph=True)
        with torch.cuda.graph(graph):
            _ = torch.relu(x + 1) * 3
        found = contents_of(graph)
        assert found is not None
        return found.nodes

    before = nodes()
    graphguard.install("observe", session)
    try:
        assert nodes() == before
    finally:
        graphguard.uninstall()


@pytest.mark.usefixtures("observed")
def test_outputs_are_those_of_the_program() -> None:
    x = torch.randn(64, device="cuda")
    graph, out = capture(lambda: torch.relu(x) + 1)
    for _ in range(3):
        x.normal_()
        graph.replay()
        torch.testing.assert_close(out, torch.relu(x) + 1)


@pytest.mark.usefixtures("observed")
def test_a_capture_that_cuda_invalidates_leaves_nothing_behind(session: Session) -> None:
    x = torch.ones(64, device="cuda")
    with pytest.raises(RuntimeError), torch.cuda.graph(torch.cuda.CUDAGraph()):
        x.sum().item()
    torch.cuda.synchronize()
    graph, out = capture(lambda: x + 1)
    graph.replay()
    torch.cuda.synchronize()

    assert len(session.signatures) == 1
    assert out[0].item() == 2


def test_a_moved_input_stops_the_launch(enforced: Installation) -> None:
    hidden = torch.zeros(64, device="cuda")
    graph, out = capture(lambda: hidden + 1)
    enforced.describe(
        graph, role="target", batch=BatchDescriptor.of(2, 2), inputs={"hidden": hidden}
    )
    graph.replay()
    torch.cuda.synchronize()
    out.zero_()
    hidden.data = torch.zeros(64, device="cuda")

    with pytest.raises(GuardMismatch, match="has moved"):
        graph.replay()
    torch.cuda.synchronize()
    assert out.sum().item() == 0


@pytest.mark.usefixtures("observed")
def test_graphs_of_inductor_are_seen(session: Session) -> None:
    x = torch.randn(64, 64, device="cuda")
    compiled = torch.compile(lambda t: torch.relu(t @ t) + 1, mode="reduce-overhead")
    for _ in range(4):
        torch.compiler.cudagraph_mark_step_begin()
        out = compiled(x).clone()

    torch.testing.assert_close(out, torch.relu(x @ x) + 1, rtol=1e-2, atol=1e-2)
    assert len(session.signatures) >= 1


@pytest.mark.usefixtures("observed")
def test_collectives_of_nccl_in_a_capture_are_recorded(session: Session, tmp_path: Path) -> None:
    import torch.distributed as dist

    rendezvous = f"file://{tmp_path / 'rendezvous'}"
    dist.init_process_group("nccl", init_method=rendezvous, rank=0, world_size=1)
    try:
        x = torch.ones(64, device="cuda")
        dist.all_reduce(x)
        graph = torch.cuda.CUDAGraph()
        with torch.cuda.graph(graph):
            dist.all_reduce(x)
        graph.replay()
        torch.cuda.synchronize()
        path = session.write_manifest(tmp_path / "manifests")
    finally:
        dist.destroy_process_group()

    (signature,) = manifest.read(path).signatures
    assert [str(call) for call in signature.collectives] == ["all_reduce(64 float32, sum) on 0[0]"]


@pytest.mark.usefixtures("observed")
def test_a_guard_records_its_graphs_itself(session: Session) -> None:
    step = Step()
    step.guarded(session, "16x2")

    assert [str(signature) for signature in session.signatures] == ["target/full 16x2"]


def test_cost_of_a_launch(session: Session) -> None:
    """Measure it; nothing is asserted of speed."""
    from tests.gpu.test_cost import keep

    x = torch.ones(64, device="cuda")

    def microseconds(graph: torch.cuda.CUDAGraph) -> float:
        taken = []
        for _ in range(1000):
            torch.cuda.synchronize()
            began = time.perf_counter_ns()
            graph.replay()
            taken.append((time.perf_counter_ns() - began) / 1e3)
        return statistics.median(taken)

    bare = microseconds(capture(lambda: x + 1)[0])
    graphguard.install("observe", session)
    try:
        watched = microseconds(capture(lambda: x + 1)[0])
    finally:
        graphguard.uninstall()
    keep("spine-launch", {"bare": {"median": bare}, "watched": {"median": watched}})
