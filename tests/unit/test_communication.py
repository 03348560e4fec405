"""Which kernels communicate, and which of them recorded calls explain."""

from __future__ import annotations

import pytest

from graphguard.communication import communication, families, function_name, unseen
from graphguard.nodes import GraphNode
from graphguard.signature import CollectiveCall

NCCL = "ncclDevKernel_{}(ncclDevKernelArgsStorage<4096ul>)"
ALL_REDUCE = NCCL.format("AllReduce_Sum_bf16_RING_LL")
SEND_RECV = NCCL.format("SendRecv")
CUSTOM = "void vllm::cross_device_reduce_1stage<__half, 2>(vllm::RankData*, __half*, int)"


def kernel(name: str, count: int = 1) -> GraphNode:
    return GraphNode("kernel", name, (1, 1, 1), (1, 1, 1), count=count)


def call(operation: str, *, seen_by: str = "c10d", coalesced: bool = False) -> CollectiveCall:
    return CollectiveCall(
        operation, 8, "float32", None, None, None, "0[0-1]", 2, 0, coalesced, seen_by=seen_by
    )


def left(nodes: list[GraphNode], *calls: CollectiveCall) -> list[tuple[str, int]]:
    return [(kernel.name, kernel.nodes) for kernel in unseen(nodes, calls)]


# Names of kernels as the libraries have them, see the sources in the table.
@pytest.mark.parametrize(
    ("name", "family", "calls"),
    [
        (ALL_REDUCE, "NCCL", {"all_reduce"}),
        (NCCL.format("AllReduce_bf16_TREE"), "NCCL", {"all_reduce"}),
        (NCCL.format("AllGather_RING_LL"), "NCCL", {"all_gather"}),
        (NCCL.format("AllGatherV_RING"), "NCCL", {"broadcast", "all_gather_v"}),
        (NCCL.format("Broadcast_RING"), "NCCL", {"broadcast"}),
        (NCCL.format("Reduce_f32_RING"), "NCCL", {"reduce"}),
        (NCCL.format("ReduceScatter_Sum_f16_RING_LL"), "NCCL", {"reduce_scatter"}),
        (SEND_RECV, "NCCL", {"send", "recv", "all_to_all"}),
        (NCCL.format("Generic"), "NCCL", {"*"}),
        ("ncclSymDevKernel_AllReduce_AGxLL_R_sum_bf16(ncclSymDevArgs)", "NCCL", {"all_reduce"}),
        (
            "ncclSymkDevKernel_ReduceScatter_RailA2A_LsaLD_sum_f16_profile(ncclSymkDevWorkArgs4K)",
            "NCCL",
            {"reduce_scatter"},
        ),
        ("ncclSymkDevKernel_AllGather_TmaSTMC(ncclSymkDevWorkArgs4K)", "NCCL", {"all_gather"}),
        ("ncclSymkDevKernel_Unheard_Of(int)", "NCCL", {"*"}),
        (CUSTOM, "vLLM custom all-reduce", {"all_reduce"}),
        (
            "void vllm::mnnvl_lamport_all_gather<__half, 4>(int)",
            "vLLM custom all-reduce",
            {"all_gather"},
        ),
        (
            "(anonymous namespace)::direct_dcp_q_gather_multimem_kernel(uint4 const*)",
            "vLLM context parallel",
            {"all_gather"},
        ),
        (
            "void (anonymous namespace)::one_shot_all_reduce_kernel<float, 16, 8>(float**)",
            "torch symmetric memory",
            {"all_reduce"},
        ),
        (
            "void flashinfer::trtllm_allreduce_fusion::allreduce_fusion_kernel_twoshot_sync<1>()",
            "FlashInfer",
            {"all_reduce"},
        ),
        ("void deep_ep::internode_ll::dispatch<true, 7168>(void*)", "DeepEP", {"dispatch"}),
        ("void deep_ep::legacy::intranode::combine<8>(void*)", "DeepEP", {"combine"}),
        ("void deep_ep::elastic::hybrid_dispatch_impl<8>(void*)", "DeepEP", {"dispatch"}),
        ("nvshmemi_barrier_kernel(int)", "NVSHMEM", set()),
    ],
)
def test_kernels_that_communicate_are_known(name: str, family: str, calls: set[str]) -> None:
    match = communication(kernel(name))
    assert match is not None
    assert match.family.family == family
    assert calls <= set(match.kernels.calls)


@pytest.mark.parametrize(
    "name",
    [
        "",
        "unreadable",
        "void at::native::vectorized_elementwise_kernel<4, at::native::AddFunctor<float>>(int)",
        "triton_red_fused_all_reduce_0",
        "vllm::activation_kernel",
        "void vllm::reshape_and_cache_kernel<__half>(vllm::cross_device_reduce_1stage*)",
        "ncclDevKernelGinResetSignalsAndCounters(ncclDevComm)",
        "deep_ep::legacy::layout::get_dispatch_layout(int)",
        "void cutlass::device_kernel<deep_ep::intranode::dispatch>(int)",
    ],
)
def test_other_kernels_do_not_communicate(name: str) -> None:
    assert communication(kernel(name)) is None


def test_only_kernels_communicate() -> None:
    assert communication(GraphNode("host", ALL_REDUCE)) is None


def test_a_function_has_its_namespaces_and_no_arguments() -> None:
    name = "void (anonymous namespace)::a::b<int, c::d<2>>(e::f, void (*)(int))"
    assert function_name(name) == "a::b"
    assert function_name("plain") == "plain"


def test_the_table_names_its_sources() -> None:
    assert {family.family for family in families()} >= {"NCCL", "DeepEP", "FlashInfer"}
    for family in families():
        assert all(family.sources)
        assert family.kernels
        assert all(kernels.names for kernels in family.kernels)


def test_a_kernel_without_any_call_is_unseen() -> None:
    nodes = [kernel("gemm", 9), kernel(ALL_REDUCE, 3)]
    assert left(nodes) == [("ncclDevKernel_AllReduce_Sum_bf16_RING_LL", 3)]


def test_a_kernel_is_explained_by_a_call_that_leads_to_it() -> None:
    assert left([kernel(ALL_REDUCE)], call("all_reduce")) == []
    assert left([kernel(ALL_REDUCE)], call("all_gather")) != []


def test_a_fused_group_is_one_kernel_of_many_calls() -> None:
    assert left([kernel(ALL_REDUCE)], *[call("all_reduce")] * 64) == []


def test_a_call_explains_one_kernel_where_it_leads_to_one_at_most() -> None:
    nodes = [kernel(ALL_REDUCE, 65)]
    assert left(nodes, call("all_reduce")) == [("ncclDevKernel_AllReduce_Sum_bf16_RING_LL", 64)]
    assert left(nodes, *[call("all_reduce")] * 65) == []


def test_of_several_kernels_as_many_are_unseen_as_calls_are_missing() -> None:
    nodes = [
        kernel(NCCL.format("AllReduce_Max_f32_RING_LL"), 2),
        kernel(NCCL.format("AllReduce_Sum_f32_RING_LL"), 2),
    ]
    calls = [call("all_reduce")] * 3
    assert left(nodes, *calls) == [("ncclDevKernel_AllReduce_Sum_f32_RING_LL", 1)]
    assert sum(count for _, count in left(nodes)) == 4


def test_calls_that_were_issued_as_one_may_take_several_kernels() -> None:
    assert left([kernel(ALL_REDUCE, 4)], call("all_reduce", coalesced=True)) == []


def test_point_to_point_calls_may_take_several_kernels() -> None:
    assert left([kernel(SEND_RECV, 5)], call("all_to_all")) == []


def test_nccl_s_recorders_do_not_explain_kernels_of_others() -> None:
    nodes = [kernel(CUSTOM)]
    assert left(nodes, call("all_reduce")) == [("vllm::cross_device_reduce_1stage", 1)]
    assert left(nodes, call("all_reduce", seen_by="vllm:custom_all_reduce")) == []


def test_a_kernel_of_no_call_is_always_unseen() -> None:
    nodes = [kernel("nvshmemi_barrier_kernel(int)")]
    assert len(left(nodes, call("all_reduce"), call("barrier"))) == 1


def test_what_is_unseen_is_told_with_its_library() -> None:
    (one,) = unseen([kernel(CUSTOM, 2)], [])
    assert str(one) == "2 × vllm::cross_device_reduce_1stage (vLLM custom all-reduce)"
