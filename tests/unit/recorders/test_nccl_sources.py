"""The plugin and the interposer give one sequence: nothing twice, nothing lost."""

from __future__ import annotations

from typing import Any

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from graphguard.recorders.merge import merge
from graphguard.recorders.nccl_calls import NcclCall
from tests.unit.recorders.sequences import (
    INTERPOSER,
    PLUGIN,
    nccl_call,
    numbered,
    programs,
    summary,
)


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


# --- whatever is called


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
