"""What each method of vLLM's communicators says about the communication it starts.

A reader takes the arguments under vLLM's own names for them: an argument that vLLM has added is a
``TypeError`` of the reader, which the recorder keeps, and never a misread call. Counts follow
those of :mod:`graphguard.recorders.c10d_calls`, so that both recorders write the same call alike.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from math import prod
from typing import Any, Protocol

import torch

from graphguard.recorders.c10d_groups import format_ranks
from graphguard.signature import CollectiveCall


class Owner(Protocol):
    """Who communicates: a ``GroupCoordinator`` or a device communicator of vLLM."""

    @property
    def unique_name(self) -> str:
        """VLLM's name of the group: ``tp:0``."""

    @property
    def ranks(self) -> Sequence[int]:
        """Global ranks of the group, in its order."""

    @property
    def world_size(self) -> int:
        """How many they are."""

    @property
    def rank_in_group(self) -> int:
        """This process's place among them."""


Reader = Callable[..., list[CollectiveCall]]
"""Called with the owner and the arguments of the method; returns the calls, in order."""


def _call(
    owner: Owner,
    operation: str,
    dtype: torch.dtype,
    count: int | None,
    *,
    reduction: str | None = None,
    root: int | None = None,
    peer: int | None = None,
    coalesced: bool = False,
) -> CollectiveCall:
    return CollectiveCall(
        operation=operation,
        count=count,
        dtype=str(dtype).removeprefix("torch."),
        reduction=reduction,
        root=root,
        peer=peer,
        group=f"{owner.unique_name}[{format_ranks(owner.ranks)}]",
        group_size=owner.world_size,
        group_rank=owner.rank_in_group,
        coalesced=coalesced,
    )


def all_reduce(owner: Owner, input_: torch.Tensor) -> list[CollectiveCall]:
    """Every communicator of vLLM sums: no method has another reduction to choose."""
    return [_call(owner, "all_reduce", input_.dtype, input_.numel(), reduction="sum")]


def all_gather(owner: Owner, input_: torch.Tensor, dim: int = -1) -> list[CollectiveCall]:
    """Counted as what one rank contributes, whatever the dimension."""
    return [_call(owner, "all_gather", input_.dtype, input_.numel())]


def all_gatherv(
    owner: Owner,
    input_: torch.Tensor | Sequence[torch.Tensor],
    dim: int = 0,
    sizes: Sequence[int] | None = None,
) -> list[CollectiveCall]:
    """One call for each tensor. Rows that differ by rank make it another operation to NCCL."""
    tensors = [input_] if isinstance(input_, torch.Tensor) else input_
    uneven = sizes is not None and len(set(sizes)) > 1
    return [
        _call(
            owner,
            "all_gather_v" if uneven else "all_gather",
            tensor.dtype,
            sum(sizes) * prod(tensor.shape[1:]) if sizes and uneven else tensor.numel(),
            coalesced=tensors is input_,
        )
        for tensor in tensors
    ]


def reduce_scatter(owner: Owner, input_: torch.Tensor, dim: int = -1) -> list[CollectiveCall]:
    """Counted as what one rank gets."""
    count = input_.numel() // owner.world_size
    return [_call(owner, "reduce_scatter", input_.dtype, count, reduction="sum")]


def reduce_scatterv(
    owner: Owner, input_: torch.Tensor, dim: int = -1, sizes: Sequence[int] | None = None
) -> list[CollectiveCall]:
    """Rows that differ by rank make it another operation to NCCL, counted whole."""
    if sizes is None or len(set(sizes)) == 1:
        return reduce_scatter(owner, input_, dim)
    return [_call(owner, "reduce_scatter_v", input_.dtype, input_.numel(), reduction="sum")]


def reduce_scatterv_into_output(
    owner: Owner,
    input_: torch.Tensor,
    output: torch.Tensor,
    dim: int = -1,
    sizes: Sequence[int] | None = None,
) -> list[CollectiveCall]:
    """The same, into memory of the caller."""
    return reduce_scatterv(owner, input_, dim, sizes)


def gather(owner: Owner, input_: torch.Tensor, dst: int = 0, dim: int = -1) -> list[CollectiveCall]:
    """The destination is a rank of the group."""
    return [_call(owner, "gather", input_.dtype, input_.numel(), root=dst)]


def broadcast(owner: Owner, input_: torch.Tensor, src: int = 0) -> list[CollectiveCall]:
    """The source is a rank of the group."""
    return [_call(owner, "broadcast", input_.dtype, input_.numel(), root=src)]


def broadcast_by_device(owner: Owner, tensor: torch.Tensor, src: int = 0) -> list[CollectiveCall]:
    """A device communicator has another name for what it broadcasts."""
    return broadcast(owner, tensor, src)


def send(owner: Owner, tensor: torch.Tensor, dst: int | None = None) -> list[CollectiveCall]:
    """To the next rank of the group if none is named."""
    return [_call(owner, "send", tensor.dtype, tensor.numel(), peer=_next(owner, dst))]


def recv(
    owner: Owner, size: Sequence[int], dtype: torch.dtype, src: int | None = None
) -> list[CollectiveCall]:
    """From the previous rank of the group if none is named."""
    return [_call(owner, "recv", dtype, prod(size), peer=_previous(owner, src))]


def batch_isend_irecv(owner: Owner, p2p_ops: Iterable[Any]) -> list[CollectiveCall]:
    """Read a list of ``torch.distributed.P2POp``, of which vLLM makes one group."""
    return [
        _call(
            owner,
            "send" if "send" in getattr(p2p.op, "__name__", "") else "recv",
            p2p.tensor.dtype,
            p2p.tensor.numel(),
            peer=p2p.group_peer,
            coalesced=True,
        )
        for p2p in p2p_ops
    ]


def isend_tensor_dict(
    owner: Any,  # noqa: ANN401 - a coordinator, for what only vLLM's own rule can say
    tensor_dict: Mapping[str, Any],
    dst: int | None = None,
    all_gather_group: Any = None,  # noqa: ANN401 - a coordinator
    all_gather_tensors: Mapping[str, bool] | None = None,
) -> list[CollectiveCall]:
    """One send for each tensor with content. What describes them goes from host to host."""
    peer = _next(owner, dst)
    calls = []
    for name, tensor in _tensors(tensor_dict):
        count = tensor.numel()
        if not owner.use_cpu_custom_send_recv and owner._should_use_all_gather(
            name, count, all_gather_group, all_gather_tensors
        ):
            # Each rank of that group sends its share; the receivers gather the whole again.
            count //= all_gather_group.world_size
        calls.append(_call(owner, "send", tensor.dtype, count, peer=peer))
    return calls


def irecv_tensor_dict_result(
    owner: Owner,
    result: tuple[Mapping[str, Any] | None, Any, Any],
    src: int | None = None,
    all_gather_group: object = None,
    all_gather_tensors: object = None,
) -> list[CollectiveCall]:
    """One receive for each tensor with content: which these are is known when they are there."""
    peer = _previous(owner, src)
    return [
        _call(owner, "recv", tensor.dtype, tensor.numel(), peer=peer)
        for _, tensor in _tensors(result[0] or {})
    ]


def broadcast_tensor_dict_result(  # noqa: PLR0917 - the arguments are vLLM's
    owner: Owner,
    result: Mapping[str, Any] | None,
    tensor_dict: object = None,
    src: int = 0,
    group: object = None,
    metadata_group: object = None,
) -> list[CollectiveCall]:
    """One broadcast for each tensor with content; receivers know them only at the end."""
    return [
        _call(owner, "broadcast", tensor.dtype, tensor.numel(), root=src)
        for _, tensor in _tensors(result or {})
    ]


def expert_dispatch(owner: Owner, *args: Any, **kwargs: Any) -> list[CollectiveCall]:  # noqa: ANN401
    """Tokens to their experts. How many go where is known to the device alone."""
    return [_call(owner, "dispatch", _first_tensor(args, kwargs).dtype, None)]


def expert_combine(owner: Owner, *args: Any, **kwargs: Any) -> list[CollectiveCall]:  # noqa: ANN401
    """Tokens back from their experts."""
    dtype = _first_tensor(args, kwargs).dtype
    return [_call(owner, "combine", dtype, None, reduction="sum")]


def fused_all_reduce(owner: Owner, *args: Any, **kwargs: Any) -> list[CollectiveCall]:  # noqa: ANN401
    """Read FlashInfer's all-reduce, whose input is what it is called with first."""
    return all_reduce(owner, _first_tensor(args, kwargs))


def _first_tensor(args: tuple[Any, ...], kwargs: Mapping[str, Any]) -> torch.Tensor:
    return next(value for value in (*args, *kwargs.values()) if isinstance(value, torch.Tensor))


def _next(owner: Owner, rank: int | None) -> int:
    return (owner.rank_in_group + 1) % owner.world_size if rank is None else rank


def _previous(owner: Owner, rank: int | None) -> int:
    return (owner.rank_in_group - 1) % owner.world_size if rank is None else rank


def _tensors(values: Mapping[str, Any]) -> list[tuple[str, torch.Tensor]]:
    return [
        (name, value)
        for name, value in values.items()
        if isinstance(value, torch.Tensor) and value.numel() > 0
    ]
