from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from graphguard.audit import differences_calls
from graphguard.audit.differences_calls import CallComparison, CallsDifference, Communicators
from graphguard.signature import CollectiveCall
from tests.unit.audit.jobs import call, graph

SIZES = st.integers(min_value=1, max_value=3)


def difference(ours: list[CollectiveCall], theirs: list[CollectiveCall]) -> CallsDifference | None:
    sides = Communicators([graph(*ours)]), Communicators([graph(*theirs)])
    return CallComparison(*sides).difference(ours, theirs)


def seen(operation: str, by: str, reduction: str | None = None) -> CollectiveCall:
    return CollectiveCall(
        operation, 8, "float32", reduction, None, None, "0[0-3]", 4, 0, seen_by=by
    )


def test_equal_calls_have_no_difference() -> None:
    assert difference([call(), call(count=2)], [call(), call(count=2)]) is None
    assert difference([], []) is None


def test_the_first_difference_is_told_with_what_stands_there_on_both_sides() -> None:
    found = difference([call(), call(count=7), call()], [call(), call(count=9), call()])

    assert found is not None
    (edit,) = found.edits
    assert (edit.position, edit.other_position) == (1, 1)
    assert edit.gone == ("all_reduce(7 bfloat16) on 0[0-3]",)
    assert edit.added == ("all_reduce(9 bfloat16) on 0[0-3]",)
    assert (found.counts, found.reordered) == ((3, 3), False)


def test_a_call_in_the_middle_is_found_as_one_that_was_added() -> None:
    same = [call(count=n) for n in range(1, 6)]

    found = difference(same, [*same[:2], call("all_gather"), *same[2:]])

    assert found is not None
    (edit,) = found.edits
    assert (edit.position, edit.other_position, edit.num_gone, edit.num_added) == (2, 2, 0, 1)


def test_the_same_calls_in_another_order_are_called_so() -> None:
    found = difference([call(count=1), call(count=2)], [call(count=2), call(count=1)])
    assert found is not None
    assert found.reordered


def test_every_field_of_a_call_counts() -> None:
    for changed in (
        call("all_gather"),
        call(count=1),
        call(count=None),
        call(dtype="float32"),
        call(reduction="max"),
        call(root=1),
        call(peer=1),
        call(group="0[0-7]"),
        call(coalesced=True),
        call(send_splits=(1, 2)),
        call(recv_splits=(1, 2)),
    ):
        assert difference([call()], [changed]) is not None, changed


def test_a_communicator_may_have_another_name_but_not_other_ranks() -> None:
    assert difference([call(group="0[0-3]")], [call(group="tp:7[0-3]")]) is None
    assert difference([call(group="0[0-3]")], [call(group="0[0,2]")]) is not None
    assert difference([call(group="nccl 0x7f01")], [call(group="nccl 0x7e55")]) is None


def test_two_communicators_of_the_same_ranks_that_are_exchanged_are_seen() -> None:
    first, second = call(group="0[0-3]"), call(group="1[0-3]")
    renamed = [call(group=f"{name}[0-3]") for name in ("5", "6", "5")]

    assert difference([first, second, first], renamed) is None
    assert difference([first, second, first], [first, second, second]) is not None
    assert difference([first, first], [first, second]) is not None


def test_what_another_recorder_is_not_told_is_not_compared() -> None:
    full, less = seen("all_reduce", "c10d", "sum"), seen("all_reduce", "nccl plugin")

    assert difference([full], [less]) is None

    found = difference([full], [seen("all_gather", "nccl plugin")])
    assert found is not None
    assert found.recorders == ("c10d", "nccl plugin")
    # Of one recorder on both sides, everything is.
    assert difference([full], [seen("all_reduce", "c10d", "max")]) is not None


def test_equal_calls_in_a_row_are_told_together_and_not_without_end() -> None:
    found = difference([], [call()] * 3 + [call(count=n) for n in range(1_000)])

    assert found is not None
    (edit,) = found.edits
    assert edit.added[0] == "3 × all_reduce(1024 bfloat16) on 0[0-3]"
    assert len(edit.added) == differences_calls.MAX_TOLD
    assert edit.num_added == 1_003


def test_sequences_too_long_to_align_are_one_edit_between_the_first_difference_and_the_last() -> (
    None
):
    same, other = [call(count=1)] * 10, [call(count=2), call(count=3)] * 600
    found = difference([*same, *other, *same], [*same, *other[1:], call(count=4), *same])

    assert found is not None
    (edit,) = found.edits
    assert (edit.position, edit.num_gone, edit.num_added) == (10, 1_200, 1_200)


@given(st.lists(SIZES, max_size=30), st.lists(SIZES, max_size=30))
def test_the_edits_make_the_second_sequence_of_the_first(
    ours: list[int], theirs: list[int]
) -> None:
    found = difference([call(count=n) for n in ours], [call(count=n) for n in theirs])

    assert (found is None) == (ours == theirs)
    made: list[int] = []
    at = 0
    for edit in found.edits if found else ():
        made += ours[at : edit.position]
        assert len(made) == edit.other_position
        made += theirs[edit.other_position : edit.other_position + edit.num_added]
        at = edit.position + edit.num_gone
    assert made + ours[at:] == theirs


@given(st.lists(SIZES, max_size=20), st.lists(SIZES, max_size=20))
def test_the_first_difference_is_the_same_seen_from_the_other_side(
    ours: list[int], theirs: list[int]
) -> None:
    sides = [call(count=n) for n in ours], [call(count=n) for n in theirs]
    there, back = difference(*sides), difference(sides[1], sides[0])

    assert (there is None) == (back is None)
    if there is not None and back is not None:
        assert there.edits[0].position == back.edits[0].other_position
        assert there.counts == back.counts[::-1]
