"""How a call of torch.distributed shows in the sequence of NCCL's calls."""

from __future__ import annotations

from collections.abc import Iterator

from graphguard.recorders.alignment import Expected, Key
from graphguard.recorders.nccl_calls import NcclCall
from graphguard.signature import CollectiveCall

# NCCL has no such types. torch hands their bytes over: ProcessGroupNCCL.cpp, ncclDataType, and
# view_as_real for complex numbers.
_AS_NCCL = {"bool": ("uint8", 1), "complex64": ("float32", 2), "complex128": ("float64", 2)}
_PARTS = {"all_gather_v": "broadcast", "reduce_scatter_v": "reduce"}


def key_of(call: NcclCall) -> Key:
    """Return what torch.distributed and NCCL both tell of a call."""
    return Key(call.operation, call.count, call.dtype, call.root, call.num_ranks)


def expected_of(call: CollectiveCall) -> Expected:
    """Return how a call of torch.distributed is to be looked for."""
    if call.operation in _PARTS:
        # NCCL gathers nothing uneven: one call for each rank, of as many elements as that one has.
        return Expected((), _PARTS[call.operation], call.group_size)
    if call.operation == "barrier":
        # An all-reduce of one element, whose type differs between versions of torch.
        words = ("float32", "uint8", "int8")
        return Expected(tuple((Key("all_reduce", 1, w, None, call.group_size),) for w in words))
    own = _key(call, call.operation, call.count, call.root)
    parts = tuple(_parts(call))
    return Expected(((own,), parts) if parts else ((own,),))


def _key(call: CollectiveCall, operation: str, count: int | None, root: int | None = None) -> Key:
    dtype, elements = _AS_NCCL.get(call.dtype, (call.dtype, 1))
    return Key(operation, None if count is None else count * elements, dtype, root, call.group_size)


def _parts(call: CollectiveCall) -> Iterator[Key]:
    """Yield the sends and receives that torch makes of what older NCCLs have no call for.

    Source: torch/csrc/cuda/nccl.cpp, all2all_single_equal_split, all2all_single_unequal_split,
    gather and scatter. A rank that is the root copies its own part.
    """
    others = call.group_size - 1
    if call.operation == "all_to_all":
        for _ in range(call.group_size):
            yield _key(call, "send", call.count)
            yield _key(call, "recv", call.count)
    elif call.operation == "all_to_all_v":
        for sent, received in zip(call.send_splits, call.recv_splits, strict=False):
            if sent:
                yield _key(call, "send", sent)
            if received:
                yield _key(call, "recv", received)
    elif call.operation in ("gather", "scatter"):
        gathers = call.operation == "gather"
        if call.root == call.group_rank:
            for _ in range(others):
                yield _key(call, "recv" if gathers else "send", call.count)
        else:
            yield _key(call, "send" if gathers else "recv", call.count)
