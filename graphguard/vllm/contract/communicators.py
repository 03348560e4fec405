"""vLLM's process groups, its communicators, and what these send through."""

from __future__ import annotations

from graphguard.vllm.contract.expectation import Expectation, Part, Variant

_STATE = "vllm.distributed.parallel_state"
_DEVICES = "vllm.distributed.device_communicators."
_BASE = _DEVICES + "base_device_communicator"
_CUDA = _DEVICES + "cuda_communicator"
_NCCL = _DEVICES + "pynccl"

_IDENTITY = ("unique_name", "ranks", "world_size", "rank_in_group")

_METHODS: dict[str, tuple[str, ...]] = {
    "all_gatherv": ("input_", "dim", "sizes"),
    "reduce_scatterv": ("input_", "dim", "sizes"),
    "gather": ("input_", "dst", "dim"),
    "send": ("tensor", "dst"),
    "recv": ("size", "dtype", "src"),
    "dispatch_router_logits": ("hidden_states", "router_logits"),
    "dispatch": ("hidden_states", "topk_weights", "topk_ids"),
    "combine": ("hidden_states",),
}
"""Methods that a group and its device communicator have alike, with their parameters."""

_OF_GROUPS: dict[str, tuple[str, ...]] = {
    **_METHODS,
    "_all_reduce_out_place": ("input_",),
    "_all_gather_out_place": ("input_", "dim"),
    "_reduce_scatter_out_place": ("input_", "dim"),
    "broadcast": ("input_", "src"),
    "isend_tensor_dict": ("tensor_dict", "dst", "all_gather_group", "all_gather_tensors"),
    "irecv_tensor_dict": ("src", "all_gather_group", "all_gather_tensors"),
    "broadcast_tensor_dict": ("tensor_dict", "src"),
}

_OF_DEVICES: dict[str, tuple[str, ...]] = {
    **_METHODS,
    "all_reduce": ("input_",),
    "all_gather": ("input_", "dim"),
    "reduce_scatter": ("input_", "dim"),
    "broadcast": ("tensor", "src"),
    "batch_isend_irecv": ("p2p_ops",),
}

_OF_NCCL: dict[str, tuple[str, ...]] = {
    "all_reduce": ("in_tensor",),
    "all_gather": ("output_tensor", "input_tensor"),
    "all_gatherv": ("output_tensor", "input_tensor", "sizes"),
    "reduce_scatter": ("output_tensor", "input_tensor"),
    "reduce_scatterv": ("output_tensor", "input_tensor", "sizes"),
    "send": ("tensor", "dst"),
    "recv": ("tensor", "src"),
    "broadcast": ("tensor", "src"),
    "batch_isend_irecv": ("p2p_ops",),
}


def _methods(
    module: str, owner: str, methods: dict[str, tuple[str, ...]], *, if_loaded: bool = False
) -> tuple[Expectation, ...]:
    return tuple(
        Expectation(
            module=module, path=f"{owner}.{name}", begins_with=begins_with, if_loaded=if_loaded
        )
        for name, begins_with in methods.items()
    )


def _carrier(module: str, owner: str, method: str, *parameters: str) -> Expectation:
    """Return what a transport must look like that only some processes load.

    It is not imported to be looked at: that may load a library that looks for a device.
    """
    return Expectation(
        module=_DEVICES + module,
        path=f"{owner}.{method}",
        begins_with=parameters,
        if_loaded=True,
    )


_EVERYWHERE = (
    *(
        Expectation(module=_STATE, path=f"get_{group}_group")
        for group in ("tp", "pp", "dp", "ep", "world")
    ),
    Expectation(module=_STATE, path="GroupCoordinator", sets=(*_IDENTITY, "cpu_group")),
    Expectation(module=_STATE, path="GroupCoordinator", sets=("device_communicator",)),
    # The custom operators end in the methods that are wrapped, compiled or not.
    Expectation(module=_STATE, path="all_reduce", uses=("_all_reduce_out_place",)),
    Expectation(module=_STATE, path="all_gather", uses=("_all_gather_out_place",)),
    Expectation(module=_STATE, path="reduce_scatter", uses=("_reduce_scatter_out_place",)),
    *_methods(_STATE, "GroupCoordinator", _OF_GROUPS),
    Expectation(module=_BASE, path="DeviceCommunicatorBase", sets=_IDENTITY),
    *_methods(_BASE, "DeviceCommunicatorBase", _OF_DEVICES),
    *_methods(_CUDA, "CudaCommunicator", _OF_DEVICES, if_loaded=True),
    *_methods(_NCCL, "PyNcclCommunicator", _OF_NCCL, if_loaded=True),
    _carrier("custom_all_reduce", "CustomAllreduce", "custom_all_reduce", "input"),
    _carrier("custom_all_reduce", "CustomAllreduce", "register_graph_buffers"),
    _carrier("symm_mem", "SymmMemCommunicator", "all_reduce", "inp"),
    _carrier("quick_all_reduce", "QuickAllReduce", "quick_all_reduce", "inp"),
    _carrier("flashinfer_all_reduce", "FlashInferAllReduce", "all_reduce", "input_tensor"),
    _carrier("cpu_communicator", "CpuCommunicator", "all_reduce", "input_"),
    _carrier("cpu_communicator", "_CPUSHMDistributed", "all_reduce", "input"),
    _carrier("all2all", "AgRsAll2AllManager", "dispatch", "hidden_states"),
    _carrier("all2all", "AgRsAll2AllManager", "combine", "hidden_states"),
)

_INTO_OUTPUT = {
    "reduce_scatterv_into_output": ("input_", "output", "dim", "sizes"),
    "combine_into_output": ("hidden_states", "output"),
}

COLLECTIVES = (
    Variant(
        part=Part.COLLECTIVES,
        name="into-output",
        versions=("0.32.0", "0.33.0"),
        expectations=(
            *_EVERYWHERE,
            *_methods(_STATE, "GroupCoordinator", _INTO_OUTPUT),
            *_methods(_BASE, "DeviceCommunicatorBase", _INTO_OUTPUT),
            _carrier("custom_all_reduce", "CustomAllreduce", "custom_all_gather", "inp"),
            _carrier("custom_all_reduce", "CustomAllreduce", "custom_reduce_scatter", "inp"),
            _carrier("all2all", "AgRsAll2AllManager", "combine_into_output", "hidden_states"),
        ),
    ),
    Variant(
        part=Part.COLLECTIVES,
        name="returned",
        versions=("0.20.1", "0.26.0"),
        expectations=_EVERYWHERE,
    ),
)
