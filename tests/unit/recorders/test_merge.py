"""Several recorders of one capture give one sequence: nothing twice, nothing lost."""

from __future__ import annotations

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from graphguard.recorders.merge import Merged, Process, merge
from graphguard.recorders.nccl_calls import Captured, NcclCall, Source
from graphguard.signature import CollectiveCall
from tests.unit.recorders.sequences import (
    INTERPOSER,
    PLUGIN,
    nccl_call,
    numbered,
    programs,
    summary,
    torch_call,
)

# --- one recorder alone


def test_calls_of_torch_alone_stay_as_they_are() -> None:
    calls = (torch_call(count=1), torch_call("broadcast", 2, root=1))
    assert merge(calls) == Merged(calls)
    assert merge(calls, [], []) == Merged(calls)


@pytest.mark.parametrize("source", Source)
def test_calls_of_nccl_alone_become_collective_calls(source: Source) -> None:
    calls = [nccl_call(source), nccl_call(source, "send", 2, peer=1)]
    merged = merge((), calls) if source is PLUGIN else merge((), interposer=calls)
    assert merged.calls == (
        CollectiveCall(
            operation="all_reduce",
            count=4,
            dtype="float32",
            reduction="sum" if source is INTERPOSER else "unknown",
            root=None,
            peer=None,
            group=f"nccl:{calls[0].communicator_hash:016x}(2 ranks)",
            group_size=2,
            group_rank=0,
            seen_by=source.label,
        ),
        msgspec.structs.replace(merged.calls[0], operation="send", count=2, reduction=None, peer=1),
    )


def test_a_communicator_of_all_ranks_or_of_one_is_written_with_its_ranks() -> None:
    calls = numbered(
        [
            nccl_call(INTERPOSER, num_ranks=4, rank=3),
            nccl_call(INTERPOSER, num_ranks=1, communicator=2, communicator_hash=0),
            nccl_call(INTERPOSER, num_ranks=2, communicator=3),
        ]
    )
    merged = merge((), interposer=calls, process=Process(3, 4))
    names = [call.group for call in merged.calls]
    assert names == ["nccl:00000000000000bb[0-3]", "nccl[3]", "nccl:00000000000000bb(2 ranks)"]


def test_a_call_in_a_group_is_coalesced() -> None:
    merged = merge((), interposer=[nccl_call(INTERPOSER, group=7), nccl_call(INTERPOSER)])
    assert [call.coalesced for call in merged.calls] == [True, False]


# --- torch.distributed and NCCL


def test_a_collective_of_torch_and_its_call_of_nccl_are_one() -> None:
    merged = merge([torch_call(reduction="unknown")], [nccl_call(PLUGIN)], [nccl_call(INTERPOSER)])
    assert merged.calls == (torch_call(seen_by="c10d+interposer"),)


def test_a_call_that_torch_did_not_make_stands_between_those_that_it_made() -> None:
    # vLLM's pynccl, on a communicator of its own and on torch's.
    interposer = numbered(
        [
            nccl_call(INTERPOSER, count=1),
            nccl_call(INTERPOSER, count=2, communicator=9, communicator_hash=0x99),
            nccl_call(INTERPOSER, count=3),
            nccl_call(INTERPOSER, count=4),
        ]
    )
    merged = merge([torch_call(count=1), torch_call(count=4)], interposer=interposer)
    assert summary(merged) == [
        ("all_reduce", 1, "c10d+interposer"),
        ("all_reduce", 2, "interposer"),
        ("all_reduce", 3, "interposer"),
        ("all_reduce", 4, "c10d+interposer"),
    ]
    groups = [call.group for call in merged.calls]
    assert groups == ["0[0-1]", "nccl:0000000000000099(2 ranks)", "0[0-1]", "0[0-1]"]
    assert merged.disagreements == ()


@pytest.mark.parametrize(
    ("call", "parts"),
    [
        (torch_call("all_to_all"), [("send", 4), ("recv", 4), ("send", 4), ("recv", 4)]),
        (torch_call("all_to_all"), [("all_to_all", 4)]),
        (
            torch_call("all_to_all_v", None, send_splits=(3, 5), recv_splits=(0, 7)),
            [("send", 3), ("send", 5), ("recv", 7)],
        ),
        (torch_call("gather", root=0), [("recv", 4)]),
        (torch_call("scatter", root=1), [("recv", 4)]),
        (torch_call("all_gather_v", 12), [("broadcast", 5), ("broadcast", 7)]),
        (torch_call("reduce_scatter_v", 12), [("reduce", 5), ("reduce", 7)]),
        (torch_call("barrier", 0), [("all_reduce", 1)]),
        (torch_call(dtype="complex64"), [("all_reduce", 8)]),
    ],
    ids=lambda value: str(value)[:40],
)
def test_what_torch_takes_apart_is_one_call(
    call: CollectiveCall, parts: list[tuple[str, int]]
) -> None:
    interposer = numbered(
        [
            nccl_call(INTERPOSER, count=100),
            *(nccl_call(INTERPOSER, operation, count) for operation, count in parts),
            nccl_call(INTERPOSER, count=101),
        ]
    )
    merged = merge([torch_call(count=100), call, torch_call(count=101)], interposer=interposer)
    assert [one.operation for one in merged.calls] == ["all_reduce", call.operation, "all_reduce"]
    assert merged.calls[1].count == call.count
    assert merged.disagreements == ()


def test_an_uneven_collective_takes_no_more_parts_than_it_has_ranks() -> None:
    # The last two are the program's own.
    counts = (5, 7, 1, 2)
    interposer = numbered([nccl_call(INTERPOSER, "broadcast", n, root=0) for n in counts])
    merged = merge([torch_call("all_gather_v", 12)], interposer=interposer)
    assert [call.count for call in merged.calls] == [12, 1, 2]


def test_a_collective_of_another_backend_has_no_counterpart_and_is_no_disagreement() -> None:
    gloo = torch_call(count=7, group="cpu[0-1]")
    merged = merge([gloo, torch_call(count=1)], interposer=[nccl_call(INTERPOSER, count=1)])
    assert summary(merged) == [("all_reduce", 7, "c10d"), ("all_reduce", 1, "c10d+interposer")]
    assert merged.disagreements == ()


def test_a_collective_that_nccl_did_not_see_on_a_group_of_nccl_is_a_disagreement() -> None:
    merged = merge(
        [torch_call(count=1), torch_call(count=2)], interposer=[nccl_call(INTERPOSER, count=1)]
    )
    assert [call.count for call in merged.calls] == [1, 2]
    assert len(merged.disagreements) == 1
    assert "all_reduce(2 float32, sum) on 0[0-1]" in merged.disagreements[0]


def test_a_communicator_belongs_to_one_group_only() -> None:
    calls = [torch_call(group="0[0-1]"), torch_call(group="1[0-1]")]
    interposer = numbered([nccl_call(INTERPOSER), nccl_call(INTERPOSER)])
    merged = merge(calls, interposer=interposer)
    assert [(call.group, call.seen_by) for call in merged.calls] == [
        ("0[0-1]", "c10d+interposer"),
        ("1[0-1]", "c10d"),
        ("0[0-1]", "interposer"),
    ]


def test_what_is_known_to_be_outside_of_the_capture_is_left_out() -> None:
    interposer = numbered(
        [
            nccl_call(INTERPOSER, count=1, captured=Captured.NO),
            nccl_call(INTERPOSER, count=2, captured=Captured.YES),
            nccl_call(INTERPOSER, count=3, captured=Captured.NO),
            nccl_call(INTERPOSER, count=4, captured=Captured.UNTOLD),
        ]
    )
    merged = merge([torch_call(count=1), torch_call(count=2)], interposer=interposer)
    assert [call.count for call in merged.calls] == [2, 4]
    # Where nothing was captured, it was no CUDA graph that was recorded.
    merged = merge([torch_call(count=1)], interposer=interposer[:1])
    assert [call.count for call in merged.calls] == [1]


@given(programs(), st.data())
def test_whatever_torch_made_is_there_once_in_its_order(
    program: list[NcclCall], data: st.DataObject
) -> None:
    singles = [call for call in program if call.operation in ("all_reduce", "all_gather")]
    of_torch = data.draw(st.sets(st.integers(0, len(program))))
    torch_calls = [
        torch_call(
            call.operation,
            call.count,
            group=f"{call.communicator}[0]",
            group_size=call.num_ranks,
            group_rank=call.rank,
        )
        for index, call in enumerate(singles)
        if index in of_torch
    ]
    merged = merge(torch_calls, interposer=program)
    told = [c.shared for c in merged.calls if c.seen_by.startswith("c10d")]
    assert told == [call.shared for call in torch_calls]
    direct = [c for c in merged.calls if c.seen_by == "interposer"]
    matched = [c for c in merged.calls if c.seen_by == "c10d+interposer"]
    assert len(direct) + len(matched) == len(program)
