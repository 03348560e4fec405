"""Agreement at capture on real ranks: what every rank is told of a rank that captured otherwise."""

from pathlib import Path
from typing import Any

import pytest

from tests.distributed.ranks import run

Found = dict[str, list[Any]]


@pytest.fixture(scope="module", params=[2, 4])
def found(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> list[Found]:
    """What each rank found of each fault, with 2 and with 4 ranks; rank 1 is the odd one."""
    folder = tmp_path_factory.mktemp("faults")
    return run("agreement_programs:faults", request.param, folder)


@pytest.mark.parametrize("captures", ["equal", "equal again"])
def test_equal_captures_are_agreed(captures: str, found: list[Found]) -> None:
    assert all(rank[captures] == [[], [], {}] for rank in found)


CALLS = {
    "one more": (
        ["rank 1 has 3 collective calls where ranks 0, 2-3 have 2, first at call 1"],
        ["all_reduce(8 float32, sum) on 0[0-3]", "broadcast(8 float32, root 0) on 0[0-3]"],
    ),
    "order": (
        ["rank 1 makes the calls of ranks 0, 2-3 in another order, first at call 0"],
        ["all_reduce(8 float32, sum) on 0[0-3]", "broadcast(8 float32, root 0) on 0[0-3]"],
    ),
    "dtype": (
        ["rank 1 has another dtype than ranks 0, 2-3, first at call 0"],
        ["all_reduce(8 float32, sum) on 0[0-3]", "all_reduce(8 float16, sum) on 0[0-3]"],
    ),
    "count": (
        ["rank 1 has another count than ranks 0, 2-3, first at call 0"],
        ["all_reduce(8 float32, sum) on 0[0-3]", "all_reduce(4 float32, sum) on 0[0-3]"],
    ),
    "root": (
        ["rank 1 has another root than ranks 0, 2-3, first at call 1"],
        ["broadcast(8 float32, root 0) on 0[0-3]", "broadcast(8 float32, root 1) on 0[0-3]"],
    ),
    "group": (
        ["rank 1 has another communicator than ranks 0, 2-3, first at call 0"],
        ["all_reduce(8 float32, sum) on 0[0-3]", "all_reduce(8 float32, sum) on 1[0-3]"],
    ),
}

SETS = {
    "captured by one": (
        "target/full 8x2: ranks 0, 2-3 did not capture a graph that rank 1 did "
        "(ranks 0, 2-3: not captured; rank 1: captured)"
    ),
    "not captured by one": (
        "target/full 8x2: rank 1 did not capture a graph that ranks 0, 2-3 did "
        "(ranks 0, 2-3: captured; rank 1: not captured)"
    ),
    "order of captures": (
        "rank 1 captured the graphs of target/full in another order than ranks 0, 2-3 "
        "(ranks 0, 2-3: 16x2 as number 0; rank 1: 8x2 as number 0)"
    ),
    "mode": (
        "rank 1 runs in another mode than ranks 0, 2-3 (ranks 0, 2-3: enforce; rank 1: observe)"
    ),
    "family": (
        "rank 1 sealed another family of graphs than ranks 0, 2-3 "
        "(ranks 0, 2-3: target/full; rank 1: drafter/full)"
    ),
}


@pytest.mark.parametrize("fault", CALLS)
def test_another_call_is_named_with_both_sides_on_every_rank(
    fault: str, found: list[Found]
) -> None:
    sentences, sides = CALLS[fault]
    differences, blamed, failures = found[0][fault]

    assert all(rank[fault] == found[0][fault] for rank in found)
    assert len(differences) == 1
    assert failures == {}
    if len(found) == 4:
        assert blamed == [[1]]
        assert f"target/full 16x2: {sentences[0]}" in differences[0]
        assert all(side in differences[0] for side in sides)
    else:
        assert blamed == [[]]
        assert all(side.replace("[0-3]", "[0-1]") in differences[0] for side in sides)


@pytest.mark.parametrize("fault", SETS)
def test_other_sets_of_graphs_are_told_on_every_rank(fault: str, found: list[Found]) -> None:
    differences, blamed, _ = found[0][fault]

    assert all(rank[fault] == found[0][fault] for rank in found)
    if len(found) == 4:
        assert differences == [SETS[fault]]
        assert blamed == [[1]]
    else:
        assert len(differences) == 1
        assert blamed == [[]]


def test_a_capture_that_failed_on_one_rank_is_told_on_every_rank(found: list[Found]) -> None:
    assert all(rank["failure"] == [[], [], {"1": "out of memory"}] for rank in found)


@pytest.mark.parametrize("ranks", [2, 4])
def test_a_rank_that_never_arrives_is_named_on_every_other_rank(ranks: int, tmp_path: Path) -> None:
    results = run("agreement_programs:a_rank_never_arrives", ranks, tmp_path)

    assert results[1] == []
    for rank in {*range(ranks)} - {1}:
        missing, told = results[rank]
        assert missing == [1]
        assert f"rank {rank} of 0[0-{ranks - 1}]: rank 1 did not come" in told
        assert "rank 1 came last to 'seal', number 1 (target/full)" in told


def test_a_rank_that_never_joins_is_named_on_every_other_rank(tmp_path: Path) -> None:
    assert run("agreement_programs:a_rank_joins_nothing", 4, tmp_path) == [[1], [], [1], [1]]


def test_two_groups_of_one_rank_are_compared_apart(tmp_path: Path) -> None:
    results = run("agreement_programs:two_groups", 4, tmp_path)

    equal: list[Any] = [[], [], {}]
    # Rank 3 reduces more elements in its data-parallel pair, and only there.
    assert [result["tensor"] for result in results] == [equal] * 4
    assert [results[rank]["data"] for rank in (0, 2)] == [equal] * 2
    for rank in (1, 3):
        assert results[rank]["data"][0] == [
            "target/full 16x2: rank 1 and rank 3 differ in the count of a call, first at call 1 "
            "(rank 1: all_reduce(8 float32, sum) on 4[1,3]; "
            "rank 3: all_reduce(12 float32, sum) on 4[1,3])"
        ]
    assert results[3]["members"] == [1, "4[1,3]"]
    assert all(result["refused"] == "ConfigurationError" for result in results)


def test_ranks_agree_over_a_server_in_each_life_of_their_group(tmp_path: Path) -> None:
    for result in run("agreement_programs:over_tcp", 4, tmp_path):
        assert result == {"found": [[[], [], {}]] * 2, "own connection": True}


def test_a_server_that_is_gone_is_an_error(tmp_path: Path) -> None:
    nothing, told = run("agreement_programs:the_server_is_gone", 2, tmp_path)

    assert nothing == ""
    assert "rank 1 of 0[0-1]: the store of the group failed" in told


def test_nodes_name_the_step_in_which_they_part_though_they_hang_in_it(tmp_path: Path) -> None:
    one, other = run("agreement_programs:nodes_that_part", 2, tmp_path)

    what = "launched different things in step 300 of 0[0-1]: {:016x} and {:016x}"
    assert one == [f"host-a and host-b {what.format(1, 2)}"]
    assert other == [f"host-b and host-a {what.format(2, 1)}"]
