"""vLLM's own ``CudaCommunicator`` above transports whose devices are stand-ins.

The classes are those of the vLLM that is first on the path, and so is the choice between them.
What is not real is below them: the NCCL library, the custom kernels, symmetric memory, FlashInfer.
Each is a stand-in that gives back a tensor, for no machine without a GPU has the real ones. Run as
a module, this file prints what was recorded as JSON.
"""

from __future__ import annotations

import contextlib
import functools
import importlib
import json
import sys
from collections.abc import Callable
from types import SimpleNamespace
from typing import Any
from unittest import mock

import torch

GROUPS = "vllm.distributed.parallel_state"
COMMUNICATORS = "vllm.distributed.device_communicators."
HALF = torch.ones(4, 8, dtype=torch.bfloat16)


def module(name: str) -> Any:
    return importlib.import_module(COMMUNICATORS + name)


def blank(cls: Any, **attributes: Any) -> Any:
    """An instance of a real class whose constructor would need a device."""
    instance = cls.__new__(cls)
    vars(instance).update(attributes)
    return instance


def coordinator(name: str, communicator: Any) -> Any:
    state = importlib.import_module(GROUPS)
    group = blank(
        state.GroupCoordinator,
        unique_name=name,
        ranks=[0, 1],
        world_size=2,
        rank_in_group=0,
        rank=0,
        device_group=torch.distributed.group.WORLD,
        device_communicator=communicator,
        use_custom_op_call=True,
        use_cpu_custom_send_recv=False,
        mq_broadcaster=None,
    )
    state._register_group(group)
    return group


def device_communicator(name: str = "tp:0", **transports: Any) -> Any:
    absent = dict.fromkeys(
        (
            "pynccl_comm",
            "ca_comm",
            "qr_comm",
            "symm_mem_comm",
            "fi_ar_comm",
            "fi_pcie_ipc_ar_comm",
            "aiter_ar_comm",
            "all2all_manager",
        )
    )
    return blank(
        module("cuda_communicator").CudaCommunicator,
        unique_name=name,
        ranks=[0, 1],
        world_size=2,
        rank_in_group=0,
        rank=0,
        device=torch.device("cpu"),
        device_group=torch.distributed.group.WORLD,
        use_aiter_allreduce=True,
        use_aiter_ag_rs=False,
        **{**absent, **transports},
    )


def nccl(*, disabled: bool = False) -> Any:
    library = mock.MagicMock(name="stand-in for the NCCL library")
    return blank(
        module("pynccl").PyNcclCommunicator,
        available=not disabled,
        disabled=disabled,
        nccl=library,
        comm=None,
        device=torch.device("cpu"),
        rank=0,
        world_size=2,
        nccl_version=22900,
    )


def custom_all_reduce() -> Any:
    return blank(
        module("custom_all_reduce").CustomAllreduce,
        disabled=False,
        _IS_CAPTURING=True,
        should_custom_ar=lambda tensor: tensor.numel() <= HALF.numel(),
        should_custom_all_gather=lambda tensor: False,
        all_reduce=lambda tensor, **_: tensor.clone(),
        close=lambda: None,
        _ptr=0,
        _capture_registered=True,
    )


def flashinfer() -> Any:
    owner = module("flashinfer_all_reduce")
    owner.flashinfer_comm = mock.MagicMock(name="stand-in for flashinfer.comm")
    owner.flashinfer_comm.allreduce_fusion.side_effect = lambda *_, **given: given["input"]
    for name in ("get_fi_ar_workspace", "_ensure_fi_ar_initialized"):
        if hasattr(owner, name):
            setattr(owner, name, mock.MagicMock())
    return blank(
        owner.FlashInferAllReduce,
        disabled=False,
        should_use_fi_ar=lambda tensor: True,
        **dict.fromkeys(("group", "device", "rank", "world_size", "max_num_tokens"), 1),
    )


def flashinfer_pcie_ipc() -> Any:
    owner = module("flashinfer_pcie_ipc_all_reduce").FlashInferPcieIpcAllReduce
    workspace = mock.MagicMock(name="stand-in for the workspace", return_value=HALF)
    workspace.all_reduce.return_value = HALF
    return blank(
        owner,
        disabled=False,
        should_use=lambda tensor: True,
        workspace=workspace,
        _workspace=workspace,
        destroy=lambda: None,
    )


def quick_reduce() -> Any:
    owner = module("quick_all_reduce")
    owner.ops = mock.MagicMock(name="stand-in for the kernels")
    return blank(
        owner.QuickAllReduce,
        disabled=False,
        should_quick_allreduce=lambda tensor: True,
        close=lambda: None,
        _ptr=0,
        qr_quant_level=SimpleNamespace(value=0),
        use_fp16_kernels=False,
        _get_qr_quant_level=lambda tensor: 0,
        _use_flydsl_int4=lambda tensor: False,
    )


def aiter() -> Any:
    reducer = mock.MagicMock(name="stand-in for AITER", disabled=False)
    reducer.custom_all_reduce.return_value = HALF
    owner = module("aiter_custom_all_reduce").AiterCustomAllreduce
    return blank(owner, _aiter_ca=reducer, _impl=reducer, should_custom_ar=lambda tensor: True)


def symmetric_memory() -> Any:
    owner = module("symm_mem")
    kernels = SimpleNamespace(symm_mem=mock.MagicMock(name="stand-in for the kernels"))
    owner.torch = SimpleNamespace(ops=kernels, empty_like=torch.empty_like, Tensor=torch.Tensor)
    return blank(
        owner.SymmMemCommunicator,
        disabled=False,
        should_use_symm_mem=lambda tensor: True,
        buffer=torch.zeros(1024, dtype=torch.bfloat16),
        force_multimem=True,
        group=torch.distributed.group.WORLD,
        world_size=2,
    )


def all_reduces() -> dict[str, Any]:
    """One all-reduce for each transport, as vLLM's operator makes it in compiled code."""
    makers: dict[str, Callable[[], dict[str, Any]]] = {
        "nccl": dict,
        "nccl switched off": lambda: {"pynccl_comm": nccl(disabled=True)},
        "custom": lambda: {"ca_comm": custom_all_reduce()},
        "quick": lambda: {"qr_comm": quick_reduce()},
        "flashinfer": lambda: {"fi_ar_comm": flashinfer()},
        "flashinfer over PCIe": lambda: {"fi_pcie_ipc_ar_comm": flashinfer_pcie_ipc()},
        "aiter": lambda: {"aiter_ar_comm": aiter()},
        "symmetric memory": lambda: {"symm_mem_comm": symmetric_memory()},
    }
    seen = {}
    for name, make in makers.items():
        try:
            given = make()
        except ModuleNotFoundError:
            continue
        communicator = device_communicator(**{"pynccl_comm": nccl(), **given})
        group = coordinator("tp:0", communicator)
        seen[name] = recorded(lambda: torch.ops.vllm.all_reduce(HALF, group_name="tp:0"))
        if name == "custom":
            large = HALF.repeat(2, 1)
            seen["custom, too large"] = recorded(functools.partial(group.all_reduce, large))
        # vLLM holds its groups by weak references.
        del group
    return seen


def nccl_operations() -> dict[str, Any]:
    group = coordinator("tp:0", device_communicator(pynccl_comm=nccl()))
    row = torch.ones(3, 8, dtype=torch.bfloat16)
    return {
        "all_gather": recorded(lambda: group.all_gather(HALF, 0)),
        "all_gather in the last dimension": recorded(lambda: group.all_gather(HALF)),
        "reduce_scatter": recorded(lambda: group.reduce_scatter(HALF, 0)),
        "send": recorded(lambda: group.send(HALF)),
        "recv": recorded(lambda: group.recv(HALF.size(), HALF.dtype, 1)),
        "even": recorded(lambda: group.all_gatherv(HALF, 0, [4, 4])),
        "uneven": recorded(lambda: group.all_gatherv([row, row.float()], 0, [3, 5])),
        "uneven back": recorded(lambda: group.reduce_scatterv(row.repeat(2, 1), 0, [2, 4])),
        "even back": recorded(lambda: group.reduce_scatterv(row.repeat(2, 1), 0, [3, 3])),
        "by the communicator": recorded(lambda: group.device_communicator.all_reduce(HALF)),
        "broadcast": recorded(lambda: group.device_communicator.broadcast(HALF, 1)),
    }


def symmetric_nccl() -> dict[str, Any]:
    """NCCL's symmetric memory: the switch and the allocator are stand-ins, the way is vLLM's."""
    owner = module("cuda_communicator")
    communicator = device_communicator(pynccl_comm=nccl())
    group = coordinator("tp:0", communicator)
    context = module("pynccl_allocator").nccl_symm_mem_context
    context.__init__ = lambda self, *_: setattr(self, "disabled", False)
    context.__enter__ = lambda self: self
    context.__exit__ = lambda self, *_: None
    with contextlib.ExitStack() as patched:
        patched.enter_context(
            mock.patch.object(owner, "should_nccl_symm_mem_allreduce", return_value=True)
        )
        module("pynccl").register_nccl_symmetric_ops(communicator.pynccl_comm)
        seen = {"all_reduce": recorded(lambda: group.all_reduce(HALF))}
        if hasattr(owner, "should_nccl_symm_mem_ag_rs"):
            patched.enter_context(
                mock.patch.object(owner, "should_nccl_symm_mem_ag_rs", return_value=True)
            )
            seen["all_gather"] = recorded(lambda: group.all_gather(HALF, 0))
            seen["reduce_scatter"] = recorded(lambda: group.reduce_scatter(HALF, 0))
            seen["list"] = recorded(lambda: group.all_gatherv([HALF, HALF]))
    return seen


def experts() -> dict[str, Any]:
    """Tokens to experts and back by all-gather and reduce-scatter, over two groups of vLLM."""
    owner = module("all2all")
    data = coordinator("dp:0", device_communicator("dp:0", pynccl_comm=nccl()))
    manager = blank(
        owner.AgRsAll2AllManager, dp_world_size=2, use_ep=True, tp_group=data, world_size=2
    )
    expert = coordinator("ep:0", device_communicator("ep:0", all2all_manager=manager))
    metadata = mock.MagicMock()
    metadata.dp_metadata.get_chunk_sizes_across_dp_rank.return_value = [4, 4]
    replaced: dict[str, Any] = {"get_dp_group": lambda: data, "get_ep_group": lambda: expert}
    replaced["get_forward_context"] = lambda: metadata
    replaced["get_pcp_group"] = lambda: SimpleNamespace(world_size=1)
    scores, ids = torch.ones(4, 2), torch.ones(4, 2, dtype=torch.int32)
    with contextlib.ExitStack() as patched:
        for name, value in replaced.items():
            if hasattr(owner, name):
                patched.enter_context(mock.patch.object(owner, name, value))
        return {
            "dispatch": recorded(lambda: expert.dispatch(HALF, scores, ids)),
            "combine": recorded(lambda: expert.combine(HALF.repeat(2, 1))),
        }


def recorded(function: Callable[[], object]) -> list[dict[str, Any]]:
    import msgspec

    from graphguard.vllm.collectives import CommunicatorRecorder

    with CommunicatorRecorder() as recorder:
        function()
    if recorder.failure is not None:
        raise recorder.failure
    return [msgspec.to_builtins(call) for call in recorder.calls]


def _main() -> None:
    from torch.testing._internal.distributed.fake_pg import FakeStore

    # What vLLM imports on the way and none of this uses.
    for name in ("gguf", "gguf.constants", "gguf.quants"):
        sys.modules.setdefault(name, mock.MagicMock(name=name))
    torch.distributed.init_process_group("fake", store=FakeStore(), rank=0, world_size=2)
    import vllm

    from graphguard.vllm.collectives import install

    install()
    module("pynccl").current_stream = lambda: SimpleNamespace(cuda_stream=0)
    torch.cuda.is_current_stream_capturing = lambda: True
    result = {
        "version": vllm.__version__,
        "all_reduces": all_reduces(),
        "nccl": nccl_operations(),
        "symmetric": symmetric_nccl(),
        "experts": experts(),
    }
    print(json.dumps(result))


if __name__ == "__main__":
    _main()
