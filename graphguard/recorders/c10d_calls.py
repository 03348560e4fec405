"""What each operator of torch.distributed says about the communication it starts.

The table at the end is the knowledge of this module: operators as torch 2.11 to 2.15 register
them under ``c10d`` and ``_c10d_functional``, and how each is read.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from functools import lru_cache
from typing import Any, NamedTuple

import torch
from torch._C._distributed_c10d import ReduceOp
from torch._ops import OpOverload

from graphguard.recorders.c10d_groups import Group, describe_group
from graphguard.signature import CollectiveCall

Arguments = Mapping[str, Any]
Reader = Callable[[Arguments, str], Iterator[CollectiveCall]]

UNKNOWN_REDUCTION = "unknown"
_COMMUNICATING = ("c10d::", "functional::")
# These belong to torch.distributed and communicate nothing.
_SILENT = frozenset(
    {
        "c10d::check_for_nan",
        "functional::wait_tensor",
        "functional::wait_tensors",
        "functional::_wrap_tensor_autograd",
    }
)
_FUNCTIONAL = ("_c10d_functional::", "_c10d_functional_autograd::")


class _Operator(NamedTuple):
    argument_names: tuple[str, ...]
    read: Reader


@lru_cache(maxsize=4096)
def _operator(func: OpOverload) -> _Operator | None:
    """Look up how an operator is read: None for one that communicates nothing.

    Raises:
        LookupError: If it is one of torch.distributed that this version does not know.
    """
    name: str = func._schema.name
    for prefix in _FUNCTIONAL:
        if name.startswith(prefix):
            name = "functional::" + name.removeprefix(prefix).removesuffix("_out").rstrip("_")
    read = _READERS.get(name)
    if read is None:
        if name.startswith(_COMMUNICATING) and name not in _SILENT:
            raise LookupError(f"{func.name()} is not an operator that graphguard can read")
        return None
    return _Operator(tuple(argument.name for argument in func._schema.arguments), read)


def read_calls(
    func: OpOverload, args: tuple[Any, ...], kwargs: Arguments, reduction: str
) -> Iterable[CollectiveCall]:
    """Return the calls that one operator makes, in order: several if it is a coalesced one.

    Args:
        func: The operator.
        args: Its positional arguments.
        kwargs: Its keyword arguments.
        reduction: The reduction, for operators whose own argument hides it.
    """
    operator = _operator(func)
    if operator is None:
        return ()
    arguments = {**dict(zip(operator.argument_names, args, strict=False)), **kwargs}
    return operator.read(arguments, reduction)


def name_reduction(value: Any) -> str | None:  # noqa: ANN401 - options, an operation or its name
    """Return the name of the reduction that an argument asks for, or None if it asks for none."""
    operation = getattr(value, "reduceOp", value)
    # A ReduceOp holds its type; torch lets the bare type pass for one as well.
    operation = getattr(operation, "op", operation)
    if isinstance(operation, ReduceOp.RedOpType):
        operation = operation.name
    return operation.lower() if isinstance(operation, str) else None


def _dtype(tensor: torch.Tensor) -> str:
    return str(tensor.dtype).removeprefix("torch.")


def _call(
    operation: str,
    tensor: torch.Tensor,
    group: Group,
    *,
    count: int | None,
    reduction: str | None = None,
    root: int | None = None,
    peer: int | None = None,
    coalesced: bool = False,
    send_splits: tuple[int, ...] = (),
    recv_splits: tuple[int, ...] = (),
) -> CollectiveCall:
    return CollectiveCall(
        operation=operation,
        count=count,
        dtype=_dtype(tensor),
        reduction=reduction,
        root=root,
        peer=peer,
        group=group.name,
        group_size=group.size,
        group_rank=group.rank,
        coalesced=coalesced,
        send_splits=send_splits,
        recv_splits=recv_splits,
    )


def _counted(
    operation: str,
    tensors: str,
    *,
    reduces: bool = False,
    root: str | None = None,
    peer: str | None = None,
    coalesced: bool = False,
) -> Reader:
    """Read an operator that makes one call for each tensor of an argument, and counts it whole."""

    def read(arguments: Arguments, reduction: str) -> Iterator[CollectiveCall]:
        group = describe_group(_group_argument(arguments))
        given = arguments[tensors]
        for tensor in [given] if isinstance(given, torch.Tensor) else given:
            yield _call(
                operation,
                tensor,
                group,
                count=tensor.numel(),
                reduction=reduction if reduces else None,
                root=arguments[root] if root else None,
                peer=arguments[peer] if peer else None,
                coalesced=coalesced,
            )

    return read


def _functional(read: Reader) -> Reader:
    """Read a functional operator, which names its reduction itself."""

    def named(arguments: Arguments, _reduction: str) -> Iterator[CollectiveCall]:
        yield from read(arguments, name_reduction(arguments["reduce_op"]) or UNKNOWN_REDUCTION)

    return named


def _functional_reduce_scatter(tensors: str, *, coalesced: bool) -> Reader:
    """Read a functional reduce-scatter, whose output is one rank's share of the input."""

    def read(arguments: Arguments, _reduction: str) -> Iterator[CollectiveCall]:
        group = describe_group(_group_argument(arguments))
        given = arguments[tensors]
        for tensor in given if coalesced else [given]:
            yield _call(
                "reduce_scatter",
                tensor,
                group,
                count=tensor.numel() // group.size,
                reduction=name_reduction(arguments["reduce_op"]) or UNKNOWN_REDUCTION,
                coalesced=coalesced,
            )

    return read


def _list_gather(operation: str, own: str, all_parts: str, *, reduces: bool = False) -> Reader:
    """Read an operator whose other side is a list of one tensor a rank, which may be uneven.

    An uneven one is another operation to NCCL, which has to broadcast each part: it is recorded
    as ``all_gather_v`` or ``reduce_scatter_v`` with the elements of all ranks as its count.
    """

    def read(arguments: Arguments, reduction: str) -> Iterator[CollectiveCall]:
        group = describe_group(_group_argument(arguments))
        for mine, parts in zip(arguments[own], arguments[all_parts], strict=True):
            even = len({part.numel() for part in parts}) == 1
            yield _call(
                operation if even else f"{operation}_v",
                mine,
                group,
                count=mine.numel() if even else sum(part.numel() for part in parts),
                reduction=reduction if reduces else None,
            )

    return read


def _all_to_all_lists(arguments: Arguments, _reduction: str) -> Iterator[CollectiveCall]:
    sent = tuple(tensor.numel() for tensor in arguments["input_tensors"])
    received = tuple(tensor.numel() for tensor in arguments["output_tensors"])
    yield _uneven_all_to_all(arguments, arguments["input_tensors"][0], sent, received)


def _all_to_all_single(arguments: Arguments, _reduction: str) -> Iterator[CollectiveCall]:
    tensor = arguments["input"]
    sent, received = arguments["input_split_sizes"], arguments["output_split_sizes"]
    group = describe_group(_group_argument(arguments))
    if not sent and not received:
        yield _call("all_to_all", tensor, group, count=tensor.numel() // group.size)
        return
    output = arguments.get("output", tensor)
    yield _uneven_all_to_all(
        arguments,
        tensor,
        _split_elements(tensor, sent, group.size),
        _split_elements(output, received, group.size),
    )


def _split_elements(tensor: torch.Tensor, rows: Sequence[int], size: int) -> tuple[int, ...]:
    if not rows:
        return (tensor.numel() // size,) * size
    row = tensor.numel() // tensor.shape[0] if tensor.dim() > 0 and tensor.shape[0] else 0
    return tuple(int(count) * row for count in rows)


def _uneven_all_to_all(
    arguments: Arguments, tensor: torch.Tensor, sent: tuple[int, ...], received: tuple[int, ...]
) -> CollectiveCall:
    """Record an all-to-all with splits, even if those of this rank happen to be equal.

    Whether they are is something that only this rank knows; its peers' may differ.
    """
    group = describe_group(_group_argument(arguments))
    return _call("all_to_all_v", tensor, group, count=None, send_splits=sent, recv_splits=received)


def _barrier(arguments: Arguments, _reduction: str) -> Iterator[CollectiveCall]:
    group = describe_group(_group_argument(arguments))
    yield _call("barrier", arguments["tensor"], group, count=0)


def _batch_point_to_point(arguments: Arguments, _reduction: str) -> Iterator[CollectiveCall]:
    group = describe_group(_group_argument(arguments))
    for operation, peer, tensor in zip(
        arguments["op_list"], arguments["peer_list"], arguments["tensors"], strict=True
    ):
        name = str(operation).removeprefix("i")
        yield _call(name, tensor, group, count=tensor.numel(), peer=peer, coalesced=True)


def _group_argument(arguments: Arguments) -> Any:  # noqa: ANN401 - see describe_group
    return arguments["process_group"] if "process_group" in arguments else arguments["group_name"]


_READERS: dict[str, Reader] = {
    "c10d::allreduce_": _counted("all_reduce", "tensors", reduces=True),
    "c10d::allreduce_coalesced_": _counted("all_reduce", "tensors", reduces=True, coalesced=True),
    "c10d::broadcast_": _counted("broadcast", "tensors", root="root_rank"),
    "c10d::reduce_": _counted("reduce", "tensors", reduces=True, root="root_rank"),
    "c10d::gather_": _counted("gather", "input_tensors", root="root_rank"),
    "c10d::gather_into_tensor_": _counted("gather", "input_tensor", root="root_rank"),
    "c10d::scatter_": _counted("scatter", "output_tensors", root="root_rank"),
    "c10d::_allgather_base_": _counted("all_gather", "input_tensor"),
    "c10d::allgather_into_tensor_coalesced_": _counted("all_gather", "inputs", coalesced=True),
    "c10d::allgather_coalesced_": _counted("all_gather", "input_list", coalesced=True),
    "c10d::allgather_": _list_gather("all_gather", "input_tensors", "output_tensors"),
    "c10d::_reduce_scatter_base_": _counted("reduce_scatter", "output_tensor", reduces=True),
    "c10d::reduce_scatter_tensor_coalesced_": _counted(
        "reduce_scatter", "outputs", reduces=True, coalesced=True
    ),
    "c10d::reduce_scatter_": _list_gather(
        "reduce_scatter", "output_tensors", "input_tensors", reduces=True
    ),
    "c10d::alltoall_": _all_to_all_lists,
    "c10d::alltoall_base_": _all_to_all_single,
    "c10d::send": _counted("send", "tensors", peer="dst"),
    "c10d::recv_": _counted("recv", "tensors", peer="src"),
    "c10d::recv_any_source_": _counted("recv", "tensors"),
    "c10d::barrier": _barrier,
    "c10d::monitored_barrier_": _barrier,
    "functional::all_reduce": _functional(_counted("all_reduce", "input", reduces=True)),
    "functional::all_reduce_coalesced": _functional(
        _counted("all_reduce", "inputs", reduces=True, coalesced=True)
    ),
    "functional::broadcast": _counted("broadcast", "input", root="src"),
    "functional::all_gather_into_tensor": _counted("all_gather", "input"),
    "functional::all_gather_into_tensor_coalesced": _counted(
        "all_gather", "inputs", coalesced=True
    ),
    "functional::reduce_scatter_tensor": _functional_reduce_scatter("input", coalesced=False),
    "functional::reduce_scatter_tensor_coalesced": _functional_reduce_scatter(
        "inputs", coalesced=True
    ),
    "functional::all_to_all_single": _all_to_all_single,
    "functional::isend": _counted("send", "tensor", peer="dst"),
    "functional::irecv": _counted("recv", "tensor", peer="src"),
    "functional::batch_p2p_ops": _batch_point_to_point,
}
