"""Calls as recorders tell them, made up for the tests."""

from __future__ import annotations

from typing import Any

import msgspec
from hypothesis import strategies as st

from graphguard.recorders.merge import Merged
from graphguard.recorders.nccl_calls import NcclCall, Source
from graphguard.signature import CollectiveCall

PLUGIN, INTERPOSER = Source.PLUGIN, Source.INTERPOSER
_ROOTED = ("broadcast", "reduce", "gather", "scatter")
_REDUCING = ("all_reduce", "reduce", "reduce_scatter")


def torch_call(operation: str = "all_reduce", count: int | None = 4, **more: Any) -> CollectiveCall:
    fields: dict[str, Any] = {
        "dtype": "float32",
        "reduction": "sum" if operation in _REDUCING else None,
        "root": None,
        "peer": None,
        "group": "0[0-1]",
        "group_size": 2,
        "group_rank": 0,
    }
    return CollectiveCall(operation=operation, count=count, **{**fields, **more})


def nccl_call(
    source: Source, operation: str = "all_reduce", count: int = 4, **more: Any
) -> NcclCall:
    fields: dict[str, Any] = {
        "dtype": "float32",
        "reduction": "sum" if source is INTERPOSER and operation in _REDUCING else "",
        "communicator": 0xA if source is PLUGIN else 0xB,
        "communicator_hash": 0xAA if source is PLUGIN else 0xBB,
        "rank": 0,
        "num_ranks": 2,
    }
    return NcclCall(source=source, operation=operation, count=count, **{**fields, **more})


def numbered(calls: list[NcclCall]) -> list[NcclCall]:
    """Give calls the order in which a log has them."""
    return [msgspec.structs.replace(c, order=i) for i, c in enumerate(calls, start=1)]


def summary(merged: Merged) -> list[tuple[str, int | None, str]]:
    return [(call.operation, call.count, call.seen_by) for call in merged.calls]


_operations = st.sampled_from(
    [*_REDUCING, *_ROOTED, "all_gather", "send", "recv", "all_to_all", "put_signal"]
)


@st.composite
def programs(draw: st.DrawFn) -> list[NcclCall]:
    """Calls of a program on a few communicators and threads, as the interposer sees them."""
    calls = []
    for _ in range(draw(st.integers(0, 30))):
        operation = draw(_operations)
        communicator = draw(st.integers(1, 3))
        # One of them is of one rank, and the rank differs between the other ones.
        num_ranks = (1, 2, 4)[communicator - 1]
        calls.append(
            nccl_call(
                INTERPOSER,
                operation,
                draw(st.sampled_from([0, 1, 2, 64])),
                root=draw(st.integers(0, num_ranks - 1)) if operation in _ROOTED else None,
                communicator=communicator,
                communicator_hash=communicator,
                num_ranks=num_ranks,
                rank=num_ranks - 1,
                thread=draw(st.integers(0, 1)),
            )
        )
    return numbered(calls)
