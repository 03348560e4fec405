"""One sequence of collective calls from all recorders that saw a capture.

A collective of torch.distributed becomes one or several calls of NCCL, and both are recorded.
They are one call here, told as torch.distributed tells it: it knows the global ranks of the group.
Calls of NCCL that torch.distributed did not make, such as those of vLLM's pynccl, stand between.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import NamedTuple

import msgspec

from graphguard.recorders.alignment import align
from graphguard.recorders.nccl_calls import Captured, NcclCall
from graphguard.recorders.nccl_sources import one_sequence
from graphguard.recorders.torch_in_nccl import expected_of, key_of
from graphguard.signature import CollectiveCall

UNKNOWN_REDUCTION = "unknown"
_REDUCING = frozenset({"all_reduce", "reduce", "reduce_scatter", "reduce_scatter_v"})


class Process(NamedTuple):
    """Where calls were made: a rank of a job."""

    rank: int
    world_size: int


_ALONE = Process(0, 1)


class Merged(NamedTuple):
    """Calls in their order, each once, and what recorders told differently, as sentences."""

    calls: tuple[CollectiveCall, ...]
    disagreements: tuple[str, ...] = ()


def merge(
    torch_calls: Sequence[CollectiveCall],
    plugin: Sequence[NcclCall] | None = None,
    interposer: Sequence[NcclCall] | None = None,
    *,
    process: Process = _ALONE,
) -> Merged:
    """Return every call once, as the most detailed recorder told it.

    If any call is known to have gone into a graph, those that are known not to have are left out.

    Args:
        torch_calls: What was recorded of torch.distributed, in order.
        plugin: What NCCL's profiler plugin saw, in its order; None where it was not on duty.
        interposer: What the interposer saw, in its order; None where it was not on duty.
        process: Whose calls they are, for communicators of all ranks or of one.
    """
    nccl = one_sequence(plugin, interposer)
    if not nccl.calls:
        return Merged(tuple(torch_calls), nccl.disagreements)
    seen = [key_of(call) for call in nccl.calls]
    found = align([expected_of(call) for call in torch_calls], seen, pair_different=False)
    found = _on_one_group(torch_calls, nccl.calls, found)
    groups = _groups(torch_calls, nccl.calls, found, process)
    told = [*nccl.disagreements, *_missing(torch_calls, found)]
    calls = _interleaved(torch_calls, nccl.calls, found, groups)
    return Merged(tuple(calls), tuple(told))


_Found = Sequence[tuple[int, ...]]


def _on_one_group(
    torch_calls: Sequence[CollectiveCall], nccl: Sequence[NcclCall], found: _Found
) -> list[tuple[int, ...]]:
    """Drop matches on a communicator that belongs to another group.

    A group may have several communicators, one for each device or pair of ranks, but no
    communicator has two groups.
    """
    owners: dict[int, str] = {}
    kept = []
    for call, positions in zip(torch_calls, found, strict=True):
        owner = {owners.setdefault(nccl[p].communicator, call.group) for p in positions}
        kept.append(positions if owner <= {call.group} else ())
    return kept


def _groups(
    torch_calls: Sequence[CollectiveCall],
    nccl: Sequence[NcclCall],
    found: _Found,
    process: Process,
) -> dict[int, str]:
    """Return the text of each communicator: its group's, where torch.distributed has one."""
    texts = {
        nccl[position].communicator: call.group
        for call, positions in zip(torch_calls, found, strict=True)
        for position in positions
    }
    for call in nccl:
        texts.setdefault(call.communicator, _group_text(call, process))
    return texts


def _group_text(call: NcclCall, process: Process) -> str:
    name = f"nccl:{call.communicator_hash:016x}" if call.communicator_hash else "nccl"
    if call.num_ranks == 1:
        return f"{name}[{process.rank}]"
    if call.num_ranks == process.world_size and call.rank == process.rank:
        return f"{name}[0-{process.world_size - 1}]"
    # Which ranks of the job these are is something that NCCL does not know.
    return f"{name}({call.num_ranks} ranks)"


def _missing(torch_calls: Sequence[CollectiveCall], found: _Found) -> Iterator[str]:
    """Tell of calls that NCCL did not see, on groups of which it saw others."""
    seen = {call.group for call, positions in zip(torch_calls, found, strict=True) if positions}
    missing = [
        call
        for call, positions in zip(torch_calls, found, strict=True)
        if not positions and call.group in seen and call.count != 0 and call.group_size > 1
    ]
    if missing:
        number = "a call" if len(missing) == 1 else f"{len(missing)} calls"
        first = "" if len(missing) == 1 else "the first is "
        yield (
            f"{number} of torch.distributed had no counterpart in NCCL, where others of the same "
            f"group had one: {first}{missing[0]}"
        )


def _interleaved(
    torch_calls: Sequence[CollectiveCall],
    nccl: Sequence[NcclCall],
    found: _Found,
    groups: dict[int, str],
) -> Iterator[CollectiveCall]:
    leave_out = any(call.captured is Captured.YES for call in nccl)
    explained = {position for positions in found for position in positions}
    begin = 0

    def direct(end: int) -> Iterator[CollectiveCall]:
        for position in range(begin, end):
            call = nccl[position]
            if position not in explained and not (leave_out and call.captured is Captured.NO):
                yield _as_collective(call, groups[call.communicator])

    for call, positions in zip(torch_calls, found, strict=True):
        if not positions:
            yield call
            continue
        yield from direct(positions[0])
        begin = positions[0]
        seen = [nccl[position] for position in positions]
        if not (leave_out and all(one.captured is Captured.NO for one in seen)):
            yield _both(call, seen)
    yield from direct(len(nccl))


def _both(call: CollectiveCall, seen: Sequence[NcclCall]) -> CollectiveCall:
    labels = dict.fromkeys((call.seen_by, *(one.source.label for one in seen)))
    reduction = call.reduction
    if reduction == UNKNOWN_REDUCTION:
        reduction = seen[0].reduction or UNKNOWN_REDUCTION
    return msgspec.structs.replace(call, reduction=reduction, seen_by="+".join(labels))


def _as_collective(call: NcclCall, group: str) -> CollectiveCall:
    told = call.reduction or UNKNOWN_REDUCTION
    return CollectiveCall(
        operation=call.operation,
        count=call.count,
        dtype=call.dtype,
        reduction=told if call.operation in _REDUCING else None,
        root=call.root,
        peer=call.peer,
        group=group,
        group_size=call.num_ranks,
        group_rank=call.rank,
        coalesced=call.group != 0,
        seen_by=call.source.label,
    )
