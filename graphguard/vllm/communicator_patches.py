"""Where the recorder of collective calls stands in vLLM: one wrapper around each method."""

from __future__ import annotations

import sys
from collections.abc import Mapping
from typing import Any

from torch._C._distributed_c10d import ProcessGroup

from graphguard.log import logger
from graphguard.vllm import communicator_calls as calls
from graphguard.vllm import transports
from graphguard.vllm.communicator_calls import Owner
from graphguard.vllm.communicator_wrappers import (
    Method,
    managed,
    recorded,
    symmetric_memory,
    through,
)
from graphguard.vllm.patches import Function, Make, wrap

_ALL_REDUCE = Method(calls.all_reduce)
_ALL_GATHER = Method(calls.all_gather)
_REDUCE_SCATTER = Method(calls.reduce_scatter)
_DISPATCH = Method(calls.expert_dispatch, passes_on=True)
_COMBINE = Method(calls.expert_combine, passes_on=True)

_BOTH = {
    "all_gatherv": Method(calls.all_gatherv),
    "reduce_scatterv": Method(calls.reduce_scatterv),
    "reduce_scatterv_into_output": Method(calls.reduce_scatterv_into_output),
    "gather": Method(calls.gather),
    "send": Method(calls.send),
    "recv": Method(calls.recv),
    "dispatch_router_logits": _DISPATCH,
    "dispatch": _DISPATCH,
    "combine": _COMBINE,
    "combine_into_output": _COMBINE,
}
COORDINATOR_METHODS = {
    **_BOTH,
    "_all_reduce_out_place": _ALL_REDUCE,
    "_all_gather_out_place": _ALL_GATHER,
    "_reduce_scatter_out_place": _REDUCE_SCATTER,
    "broadcast": Method(calls.broadcast),
    "isend_tensor_dict": Method(calls.isend_tensor_dict),
    "irecv_tensor_dict": Method(None, calls.irecv_tensor_dict_result),
    "broadcast_tensor_dict": Method(None, calls.broadcast_tensor_dict_result),
}
COMMUNICATOR_METHODS = {
    **_BOTH,
    "all_reduce": _ALL_REDUCE,
    "all_gather": _ALL_GATHER,
    "reduce_scatter": _REDUCE_SCATTER,
    "custom_all_gather": _ALL_GATHER._replace(declines=True),
    "custom_reduce_scatter": _REDUCE_SCATTER._replace(declines=True),
    "broadcast": Method(calls.broadcast_by_device),
    "batch_isend_irecv": Method(calls.batch_isend_irecv),
}
OPERATORS = {
    "vllm::all_reduce": _ALL_REDUCE,
    "vllm::all_gather": _ALL_GATHER,
    "vllm::reduce_scatter": _REDUCE_SCATTER,
}


def install() -> None:
    """Put the wrappers in place, once in a process.

    Imports ``vllm.distributed.parallel_state``. What is loaded after that is wrapped when a
    coordinator has been made, and at the latest when a recorder is entered.
    """
    from vllm.distributed.parallel_state import GroupCoordinator

    wrap(GroupCoordinator, "__init__", _then_wrap_loaded)
    for name in transports.process_group_methods(ProcessGroup):
        wrap(ProcessGroup, name, through("torch"))
    _record_methods(GroupCoordinator, COORDINATOR_METHODS)
    wrap_loaded()


def wrap_loaded() -> None:
    """Wrap what this process has loaded since."""
    for communicator in filter(None, map(_loaded, transports.DEVICE_COMMUNICATORS)):
        _record_methods(communicator, COMMUNICATOR_METHODS)
    for carrier in transports.TRANSPORTS:
        _wrap_all(carrier, through(carrier.name, declines=carrier.declines))
    for carrier in transports.MANAGERS:
        _wrap_all(carrier, managed(carrier.name))
    for exchange in transports.EXPERT_EXCHANGES:
        owner = _loaded(exchange[:2])
        for names, read in (
            (("prepare", "prepare_async"), calls.expert_dispatch),
            (("finalize", "finalize_async"), calls.expert_combine),
        ):
            method = Method(read, transport=exchange.name, owner=_expert_group)
            _record_methods(owner, dict.fromkeys(names, method))
    context = _loaded(transports.SYMMETRIC_CONTEXT)
    if context is not None:
        wrap(context, "__enter__", symmetric_memory)
    module, name, transport = transports.FUSED_ALL_REDUCE
    fused = Method(calls.fused_all_reduce, transport=transport, owner=_tensor_group, has_self=False)
    _record_methods(sys.modules.get(module), {name: fused})


def coordinator(name: str) -> Owner:
    """Return vLLM's coordinator of a group by the group's name."""
    from vllm.distributed import parallel_state

    found: Owner | None = parallel_state._groups[name]()
    if found is None:
        raise LookupError(f"the group {name} is gone")
    return found


def _tensor_group() -> Owner:
    from vllm.distributed.parallel_state import get_tp_group

    return get_tp_group()  # type: ignore[no-any-return]


def _expert_group() -> Owner:
    from vllm.distributed.parallel_state import get_ep_group

    return get_ep_group()  # type: ignore[no-any-return]


def _loaded(place: tuple[str, str]) -> Any:  # noqa: ANN401 - a class of vLLM
    module, name = place
    return getattr(sys.modules.get(module), name, None)


def _wrap_all(carrier: transports.Transport, make: Make) -> None:
    owner = _loaded(carrier[:2])
    for name in carrier.methods:
        if hasattr(owner, name):
            wrap(owner, name, make)


def _record_methods(owner: Any, methods: Mapping[str, Method]) -> None:  # noqa: ANN401 - a class or module
    for name, method in methods.items():
        if hasattr(owner, name):
            wrap(owner, name, recorded(method))


def _then_wrap_loaded(original: Function) -> Function:
    def construct(*args: Any, **kwargs: Any) -> None:  # noqa: ANN401
        original(*args, **kwargs)
        try:
            wrap_loaded()
        except Exception as error:  # noqa: BLE001 - vLLM goes on; the recorder will fail and say it
            logger().warning("the communicators of vLLM cannot be recorded: %s", error)

    return construct
