"""Several recorders of one capture give one sequence: nothing twice, nothing lost."""

from __future__ import annotations

from typing import Any

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from graphguard.recorders.merge import Merged, Process, merge
from graphguard.recorders.nccl_calls import Captured, NcclCall, Source
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


# --- plugin and interposer


def test_what_plugin_and_interposer_both_saw_is_one_call_as_the_interposer_told_it() -> None:
    merged = merge((), [nccl_call(PLUGIN)], [nccl_call(INTERPOSER, reduction="max")])
    assert [(call.reduction, call.seen_by) for call in merged.calls] == [("max", "interposer")]
    assert merged.disagreements == ()


def test_what_the_plugin_is_never_told_is_no_disagreement() -> None:
    quiet = [
        nccl_call(INTERPOSER, num_ranks=1),
        nccl_call(INTERPOSER, count=0),
        nccl_call(INTERPOSER, "put_signal", 8, peer=1),
        nccl_call(INTERPOSER, "wait_signal", 0, dtype=""),
    ]
    calls = numbered([nccl_call(INTERPOSER, count=1), *quiet, nccl_call(INTERPOSER, count=2)])
    merged = merge((), [nccl_call(PLUGIN, count=1), nccl_call(PLUGIN, count=2)], calls)
    assert [call.count for call in merged.calls] == [1, 4, 0, 8, 0, 2]
    assert merged.disagreements == ()


@pytest.mark.parametrize(
    ("operation", "more", "parts"),
    [
        ("all_to_all", {}, ["send", "recv", "send", "recv"]),
        ("gather", {"root": 0}, ["send", "recv", "recv"]),
        ("gather", {"root": 1}, ["send"]),
        ("scatter", {"root": 0}, ["send", "send", "recv"]),
        ("scatter", {"root": 1}, ["recv"]),
        ("all_to_all", {}, ["all_to_all"]),
    ],
)
def test_what_nccl_takes_apart_is_one_call(
    operation: str, more: dict[str, Any], parts: list[str]
) -> None:
    root = more if parts == [operation] else {}
    plugin = [nccl_call(PLUGIN, part, **root) for part in parts]
    # A send of the program's own, beside those that NCCL makes.
    plugin = numbered([nccl_call(PLUGIN, "send"), *plugin, nccl_call(PLUGIN, count=9)])
    interposer = numbered(
        [
            nccl_call(INTERPOSER, "send", peer=1),
            nccl_call(INTERPOSER, operation, **more),
            nccl_call(INTERPOSER, count=9),
        ]
    )
    merged = merge((), plugin, interposer)
    assert [call.operation for call in merged.calls] == ["send", operation, "all_reduce"]
    assert merged.disagreements == ()


def test_what_only_the_plugin_saw_stands_in_its_place_and_is_a_disagreement() -> None:
    plugin = numbered([nccl_call(PLUGIN, count=n) for n in (1, 2, 3)])
    interposer = numbered([nccl_call(INTERPOSER, count=n) for n in (1, 3)])
    merged = merge((), plugin, interposer)
    assert summary(merged) == [
        ("all_reduce", 1, "interposer"),
        ("all_reduce", 2, "plugin"),
        ("all_reduce", 3, "interposer"),
    ]
    assert merged.disagreements == (
        "a call was seen by the plugin and not by the interposer: all_reduce(2 float32) of 2 ranks",
    )


def test_what_only_the_interposer_saw_is_a_disagreement() -> None:
    interposer = numbered([nccl_call(INTERPOSER, count=n) for n in (1, 2, 3)])
    merged = merge((), [nccl_call(PLUGIN, count=3)], interposer)
    assert [call.count for call in merged.calls] == [1, 2, 3]
    assert merged.disagreements == (
        "2 calls were seen by the interposer and not by the plugin: the first is "
        "all_reduce(1 float32, sum) of 2 ranks",
    )


def test_a_call_that_both_told_differently_is_one_call_and_a_disagreement() -> None:
    plugin = numbered([nccl_call(PLUGIN, count=n) for n in (1, 8, 3)])
    interposer = numbered([nccl_call(INTERPOSER, count=n) for n in (1, 2, 3)])
    merged = merge((), plugin, interposer)
    assert [call.count for call in merged.calls] == [1, 2, 3]
    assert merged.disagreements == (
        "the interposer saw all_reduce(2 float32, sum) of 2 ranks, and the plugin "
        "all_reduce(8 float32) of 2 ranks",
    )


def test_communicators_that_do_not_go_together_are_a_disagreement() -> None:
    plugin = numbered([nccl_call(PLUGIN), nccl_call(PLUGIN)])
    interposer = numbered([nccl_call(INTERPOSER), nccl_call(INTERPOSER, communicator=3)])
    merged = merge((), plugin, interposer)
    assert len(merged.calls) == 2
    assert len(merged.disagreements) == 1
    assert "another communicator" in merged.disagreements[0]


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


# --- whatever is called

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


def as_the_plugin_sees(call: NcclCall) -> list[NcclCall]:
    """What NCCL tells its plugin of a call: src/enqueue.cc, taskAppend."""
    if call.operation == "put_signal" or call.num_ranks == 1 or call.count == 0:
        return []
    ranks, at_root = range(call.num_ranks), call.rank == call.root
    parts = {
        "all_to_all": ["send", "recv"] * call.num_ranks,
        "gather": ["send", *["recv" for _ in ranks if at_root]],
        "scatter": [*["send" for _ in ranks if at_root], "recv"],
    }.get(call.operation)
    seen = msgspec.structs.replace(
        call,
        source=PLUGIN,
        reduction="",
        communicator=call.communicator + 100,
        communicator_hash=call.communicator_hash + 100,
    )
    if parts is None:
        return [seen]
    return [msgspec.structs.replace(seen, operation=part, root=None) for part in parts]


@given(programs())
def test_a_plugin_that_saw_all_that_it_is_told_adds_nothing(program: list[NcclCall]) -> None:
    plugin = numbered([seen for call in program for seen in as_the_plugin_sees(call)])
    assert merge((), plugin, program) == merge((), None, program)


@given(programs(), st.data())
def test_nothing_is_lost_and_nothing_counted_twice_when_the_interposer_misses_calls(
    program: list[NcclCall], data: st.DataObject
) -> None:
    simple = [call for call in program if len(as_the_plugin_sees(call)) == 1]
    simple = [call for call in simple if as_the_plugin_sees(call)[0].operation == call.operation]
    simple = [msgspec.structs.replace(call, thread=0) for call in simple]
    plugin = numbered([seen for call in simple for seen in as_the_plugin_sees(call)])
    missed = data.draw(st.sets(st.integers(0, len(simple))))
    kept = [call for index, call in enumerate(simple) if index not in missed]
    merged = merge((), plugin, kept)
    told = [(call.operation, call.count, call.root) for call in merged.calls]
    assert told == [(call.operation, call.count, call.root) for call in simple]
    assert bool(merged.disagreements) == (len(kept) != len(simple))


@given(programs(), st.data())
def test_whatever_each_saw_every_call_of_the_interposer_is_there_in_its_order(
    program: list[NcclCall], data: st.DataObject
) -> None:
    plugin = numbered(data.draw(programs()))
    plugin = [msgspec.structs.replace(call, source=PLUGIN) for call in plugin]
    merged = merge((), plugin, program)
    own = [(c.operation, c.count) for c in merged.calls if c.seen_by == "interposer"]
    assert own == [(call.operation, call.count) for call in program]
    assert len(merged.calls) <= len(program) + len(plugin)


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
