from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from graphguard.audit.groups import Group


@pytest.mark.parametrize(
    ("text", "members"),
    [
        ("0[0-3]", [0, 1, 2, 3]),
        ("5[0,2,4-6]", [0, 2, 4, 5, 6]),
        ("tp:0[7]", [7]),
        ("[3,1]", [1, 3]),
    ],
)
def test_text_names_the_members(text: str, members: list[int]) -> None:
    group = Group.parse(text)
    assert group is not None
    assert sorted(group.among(range(10))) == members


@pytest.mark.parametrize(
    "text",
    ["", "0", "0[]", "0[0-3", "0[3-0]", "0[0--3]", "0[0,,1]", "0[a]", "0[0]x", "0[-1]", "0[\u0661]",
     "0[12345678901]", "0[0][1]", "0[0-1-2]", "0[ 0]", "0[0]\n", "0[" + "9" * 5000 + "]"],
)  # fmt: skip
def test_text_that_names_no_ranks_is_refused(text: str) -> None:
    assert Group.parse(text) is None


def test_rank_in_the_group_follows_its_order() -> None:
    group = Group.parse("x[8,2-4,0]")
    assert group is not None
    assert [group.rank_at(i) for i in range(-1, 6)] == [None, 8, 2, 3, 4, 0, None]
    assert [group.index_of(rank) for rank in (8, 2, 3, 4, 0, 1)] == [0, 1, 2, 3, 4, None]


@given(st.text(max_size=30))
def test_no_text_is_a_crash(text: str) -> None:
    group = Group.parse(text)
    assert group is None or group.rank_at(0) is not None
