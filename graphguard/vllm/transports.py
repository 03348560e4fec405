"""What vLLM sends its collectives through, and which Python functions show that it did.

The tables are the knowledge of this module, for vLLM 0.20.1 to 0.33.0. A module is looked at only
when the process has loaded it: what is not loaded sends nothing, and importing it here could cost
seconds or start a device.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import NamedTuple

UNSEEN = "unseen"
"""A call below which nothing ran, as in an emulated capture of a custom operator."""

PREFIX = "vllm:"
"""What ``CollectiveCall.seen_by`` begins with in front of the transport."""

_COMMUNICATORS = "vllm.distributed.device_communicators."
_EXPERTS = "vllm.model_executor.layers.fused_moe.prepare_finalize."


class Transport(NamedTuple):
    """A class whose methods carry a collective.

    Attributes:
        module: Where it is.
        owner: The class.
        methods: Those that send.
        name: What the transport is called.
        declines: Whether a result of None means that it did not take the call.
    """

    module: str
    owner: str
    methods: tuple[str, ...]
    name: str
    declines: bool = False


class ExpertExchange(NamedTuple):
    """A class of vLLM that exchanges tokens between experts without a coordinator.

    Attributes:
        module: Where it is.
        owner: The class.
        name: What the exchange is called.
    """

    module: str
    owner: str
    name: str


_REDUCERS = ("custom_all_reduce", "custom_all_gather", "custom_reduce_scatter")

TRANSPORTS = (
    Transport(
        _COMMUNICATORS + "pynccl",
        "PyNcclCommunicator",
        (
            "all_reduce",
            "all_gather",
            "all_gatherv",
            "reduce_scatter",
            "reduce_scatterv",
            "reduce",
            "scatter",
            "send",
            "recv",
            "broadcast",
            "batch_isend_irecv",
        ),
        "nccl",
    ),
    Transport(
        _COMMUNICATORS + "cuda_communicator",
        "CudaCommunicator",
        ("_all_gather_symm_mem", "_all_gather_batched_symm_mem", "_reduce_scatter_symm_mem"),
        "nccl_symm_mem",
    ),
    Transport(
        _COMMUNICATORS + "custom_all_reduce",
        "CustomAllreduce",
        _REDUCERS,
        "custom_all_reduce",
        declines=True,
    ),
    Transport(
        _COMMUNICATORS + "aiter_custom_all_reduce",
        "AiterCustomAllreduce",
        ("custom_all_reduce", "custom_all_gather"),
        "aiter",
        declines=True,
    ),
    Transport(
        _COMMUNICATORS + "aiter_custom_all_reduce",
        "AiterCustomAllreduce",
        ("custom_reduce_scatter",),
        "aiter",
    ),
    Transport(
        _COMMUNICATORS + "quick_all_reduce",
        "QuickAllReduce",
        ("quick_all_reduce",),
        "quick_reduce",
    ),
    Transport(
        _COMMUNICATORS + "flashinfer_all_reduce",
        "FlashInferAllReduce",
        ("all_reduce",),
        "flashinfer",
        declines=True,
    ),
    Transport(
        _COMMUNICATORS + "flashinfer_pcie_ipc_all_reduce",
        "FlashInferPcieIpcAllReduce",
        ("all_reduce",),
        "flashinfer_pcie_ipc",
        declines=True,
    ),
    Transport(
        _COMMUNICATORS + "symm_mem",
        "SymmMemCommunicator",
        ("all_reduce",),
        "symm_mem",
        declines=True,
    ),
    Transport(
        _COMMUNICATORS + "cpu_communicator",
        "_CPUSHMDistributed",
        ("all_reduce", "gather", "all_gather_into_tensor", "send_tensor_dict", "recv_tensor_dict"),
        "shm",
    ),
)

# Managers that go through other coordinators: what those call is what is recorded.
MANAGERS = (
    Transport(
        _COMMUNICATORS + "all2all",
        "AgRsAll2AllManager",
        ("dispatch_router_logits", "dispatch", "combine", "combine_into_output"),
        "all2all:AgRs",
    ),
)

EXPERT_EXCHANGES = tuple(
    ExpertExchange(_EXPERTS + module, f"{name}PrepareAndFinalize", f"all2all:{name}")
    for module, name in (
        ("deepep_ht", "DeepEPHT"),
        ("deepep_ll", "DeepEPLL"),
        ("deepep_v2", "DeepEPV2"),
        ("flashinfer_nvlink_one_sided", "FlashInferNVLinkOneSided"),
        ("flashinfer_nvlink_two_sided", "FlashInferNVLinkTwoSided"),
        ("moonep", "MoonEP"),
        ("mori", "Mori"),
        ("nixl_ep", "NixlEP"),
    )
)

SYMMETRIC_CONTEXT = (_COMMUNICATORS + "pynccl_allocator", "nccl_symm_mem_context")
"""Entered where vLLM allocates in NCCL's symmetric memory before it calls NCCL."""

FUSED_ALL_REDUCE = ("flashinfer.comm", "allreduce_fusion", "flashinfer")
"""Called by vLLM's fused all-reduce and norm, which compiled code calls without a coordinator."""

DEVICE_COMMUNICATORS = (
    (_COMMUNICATORS + "base_device_communicator", "DeviceCommunicatorBase"),
    (_COMMUNICATORS + "cpu_communicator", "CpuCommunicator"),
    (_COMMUNICATORS + "cuda_communicator", "CudaCommunicator"),
    (_COMMUNICATORS + "xpu_communicator", "XpuCommunicator"),
)

_SENDING = ("all", "broadcast", "gather", "scatter", "reduce", "send", "recv")


def process_group_methods(process_group: type) -> Iterator[str]:
    """Yield the names of a process group's own methods that communicate."""
    for name in list(vars(process_group)):
        if name.lstrip("_").startswith(_SENDING) and not name.startswith("__"):
            yield name
