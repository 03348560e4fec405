"""Which recorded call each mark is of, and where that cannot be told."""

from __future__ import annotations

import pytest

from graphguard.breadcrumbs.naming import call_text, unit_of_each_mark, unit_text
from graphguard.communication import Match, kernel_match
from graphguard.signature import CollectiveCall


def call(
    operation: str = "all_reduce",
    count: int | None = 8,
    *,
    group: str = "tp:0[0-1]",
    size: int = 2,
    coalesced: bool = False,
    root: int | None = None,
    peer: int | None = None,
) -> CollectiveCall:
    return CollectiveCall(
        operation, count, "float16", "sum", root, peer, group, size, 0, coalesced=coalesced
    )


def match(name: str) -> Match:
    found = kernel_match(name)
    assert found is not None
    return found


REDUCE = match("ncclDevKernel_AllReduce_Sum_f16_RING_LL(ncclDevKernelArgsStorage<4096ul>)")
GATHER = match("ncclDevKernel_AllGather_RING_LL")
SEND = match("ncclDevKernel_SendRecv")


@pytest.mark.parametrize(
    ("of", "text"),
    [
        (call(count=4096), "all_reduce of 4096 float16 over tp:0[0-1]"),
        (call("broadcast", root=1), "broadcast of 8 float16 over tp:0[0-1], root 1"),
        (call("send", peer=0), "send of 8 float16 over tp:0[0-1], peer 0"),
        (call("all_to_all", None), "all_to_all of ? float16 over tp:0[0-1]"),
    ],
)
def test_a_call_is_said_in_words(of: CollectiveCall, text: str) -> None:
    assert call_text(of) == text


def test_as_many_calls_as_marks_are_one_each() -> None:
    calls = (call(), call("all_gather"))
    assert unit_of_each_mark(calls, 2) == ((calls[0],), (calls[1],))
    assert unit_of_each_mark(calls, 2, (REDUCE, GATHER)) == ((calls[0],), (calls[1],))


def test_calls_in_an_order_that_kernels_do_not_have_are_not_named() -> None:
    assert unit_of_each_mark((call(), call("all_gather")), 2, (GATHER, REDUCE)) is None


def test_fewer_or_more_calls_than_marks_are_not_named() -> None:
    for marks in (1, 3):
        assert unit_of_each_mark((call(), call()), marks) is None
    assert unit_of_each_mark((), 1) is None


def test_calls_that_were_issued_as_one_share_a_mark() -> None:
    sends = tuple(call("send", n, coalesced=True, peer=1) for n in (1, 2, 3))
    units = unit_of_each_mark((call(), *sends, call()), 3, (REDUCE, SEND, REDUCE))
    assert units == ((call(),), sends, (call(),))
    assert unit_text(sends) == "3 calls as one: send of 1 float16 over tp:0[0-1], peer 1"
    assert unit_text((call(),)) == "all_reduce of 8 float16 over tp:0[0-1]"


def test_calls_as_one_on_two_communicators_are_two_kernels() -> None:
    first = tuple(call(group="a[0-1]", coalesced=True) for _ in range(2))
    second = tuple(call(group="b[0-1]", coalesced=True) for _ in range(2))
    assert unit_of_each_mark((*first, *second), 2, (REDUCE, REDUCE)) == (first, second)


def test_calls_as_one_may_still_be_a_kernel_each() -> None:
    calls = tuple(call(coalesced=True) for _ in range(2))
    assert unit_of_each_mark(calls, 2, (REDUCE, REDUCE)) == ((calls[0],), (calls[1],))


def test_calls_of_one_rank_alone_have_no_kernel() -> None:
    calls = (call(), call(group="self[0]", size=1), call("all_gather"))
    assert unit_of_each_mark(calls, 2, (REDUCE, GATHER)) == ((calls[0],), (calls[2],))
    assert unit_of_each_mark(calls, 3) == tuple((one,) for one in calls)
