"""Communication kernels in the graphs of a job that no recorder saw."""

from __future__ import annotations

import msgspec

from graphguard.audit import Severity, audit
from graphguard.nodes import GraphNode
from graphguard.signature import Signature
from tests.unit.audit.jobs import call, graph, job, rules

ALL_REDUCE = GraphNode(
    "kernel", "ncclDevKernel_AllReduce_Sum_bf16_RING_LL(ncclDevKernelArgsStorage<4096ul>)", count=3
)
BROADCAST = GraphNode("kernel", "ncclDevKernel_Broadcast_RING(ncclDevKernelArgsStorage<4096ul>)")
GEMM = GraphNode("kernel", "gemm", count=50)


def with_nodes(signature: Signature, *nodes: GraphNode) -> Signature:
    return msgspec.structs.replace(signature, graph_nodes=nodes)


def test_kernels_that_no_recorder_saw_are_a_warning() -> None:
    (finding,) = audit(job(*([with_nodes(graph(), GEMM, ALL_REDUCE)] for _ in range(4))))
    assert finding.rule == "unseen-communication"
    assert finding.severity is Severity.WARNING
    assert finding.ranks == (0, 1, 2, 3)
    assert finding.graph == "target/full 16x2"
    assert finding.what == (
        "3 communication kernels of ranks 0-3 not seen by any recorder: "
        "3 × ncclDevKernel_AllReduce_Sum_bf16_RING_LL (NCCL)"
    )
    assert finding.evidence == tuple(f"rank{rank}.json" for rank in range(4))


def test_kernels_that_recorded_calls_explain_give_no_finding() -> None:
    seen = with_nodes(graph(call(), call(), call()), GEMM, ALL_REDUCE)
    assert audit(job(*[[seen]] * 4)) == []


def test_only_what_is_left_over_is_told() -> None:
    seen = with_nodes(graph(call(), call()), GEMM, ALL_REDUCE, BROADCAST)
    (finding,) = audit(job(*[[seen]] * 4))
    assert finding.what.startswith("2 communication kernels of ranks 0-3 not seen")
    assert "1 × ncclDevKernel_AllReduce_Sum_bf16_RING_LL (NCCL)" in finding.what
    assert "1 × ncclDevKernel_Broadcast_RING (NCCL)" in finding.what


def test_ranks_with_different_kernels_are_told_apart() -> None:
    nodes = [(ALL_REDUCE,), (ALL_REDUCE,), (BROADCAST,)]
    findings = audit(job(*([with_nodes(graph(), *of_rank)] for of_rank in nodes)))
    assert rules(findings) == ["unseen-communication"] * 2
    assert [finding.ranks for finding in findings] == [(0, 1), (2,)]
    assert findings[1].what.startswith("1 communication kernel of rank 2 not seen")


def test_a_graph_without_nodes_gives_no_finding() -> None:
    assert audit(job([graph()], [graph()])) == []


def test_a_sentence_names_so_many_kernels_and_no_more() -> None:
    nodes = [GraphNode("kernel", f"nvshmem_kernel_{i}") for i in range(10)]
    (finding,) = audit(job([with_nodes(graph(), *nodes)]))
    assert finding.what.count("×") == 8
    assert finding.what.endswith("and 2 more")
