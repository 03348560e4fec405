"""Guards with a group, on real ranks."""

import json
from pathlib import Path
from typing import Any

import pytest

from tests.distributed.ranks import run


def programs(name: str, ranks: int, folder: Path) -> list[Any]:
    return run(f"agreed_programs:{name}", ranks, folder)


@pytest.mark.parametrize("ranks", [2, 4])
def test_steps_that_all_ranks_decide_alike_are_run_as_decided(ranks: int, tmp_path: Path) -> None:
    verdicts = ["replay (exact)", "pad (padded)", "eager (query_length)", "pad (padded)"]
    assert programs("equal_steps", ranks, tmp_path) == [verdicts] * ranks


@pytest.mark.parametrize("ranks", [2, 4])
def test_the_first_rank_decides_and_the_others_do_the_same(ranks: int, tmp_path: Path) -> None:
    *others, last = programs("moved_on_last_rank", ranks, tmp_path)

    assert last == {"verdicts": ["replay (exact)", "eager (input_address)"], "divergences": []}
    adopted = {
        "verdicts": ["replay (exact)", "eager (adopted)"],
        "divergences": [["adopted", 2, [ranks - 1]]],
    }
    assert others == [adopted] * (ranks - 1)


def test_a_quarantine_that_one_rank_announces_holds_on_all_from_one_step(tmp_path: Path) -> None:
    results = programs("quarantined_by_one_rank", 2, tmp_path)

    first = results[0]["announced"]
    assert 2 < first <= 70
    # One step was run before the announcement, so the first verdict here is that of step 2.
    expected = ["replay (exact)"] * (first - 2) + ["eager (quarantined)"] * (102 - first)
    assert [result["verdicts"] for result in results] == [expected] * 2


def test_a_graph_that_moved_on_one_rank_is_captured_again_by_all_at_one_step(
    tmp_path: Path,
) -> None:
    mine, other = programs("captured_again_by_all", 2, tmp_path)

    assert mine["graphs"] == other["graphs"] == 1
    assert mine["verdicts"] == ["eager (input_address)"] * 63 + ["replay (exact)"] * 37
    assert other["verdicts"] == ["eager (adopted)"] * 63 + ["replay (exact)"] * 37


def test_a_capture_that_fails_on_one_rank_is_used_on_none(tmp_path: Path) -> None:
    results = programs("capture_that_fails_on_one_rank", 2, tmp_path)

    assert results[0]["verdicts"] == [
        "recapture (too_many_requests)",
        "eager (too_many_requests)",
        "recapture (too_many_requests)",
        "replay (exact)",
    ]
    assert results[0]["batches"] == ["4x2", "6x2"]
    assert results[1] == results[0]


def test_a_rank_without_memory_for_more_captures_ends_them_on_all(tmp_path: Path) -> None:
    results = programs("out_of_memory_on_one_rank", 2, tmp_path)

    verdicts = ["recapture (too_many_requests)", "eager (too_many_requests)"]
    assert results == [{"verdicts": verdicts, "graphs": 2}] * 2


@pytest.mark.parametrize("ranks", [2, 4])
def test_in_a_vote_all_ranks_run_eagerly_if_one_has_to(ranks: int, tmp_path: Path) -> None:
    first, *others = programs("voted", ranks, tmp_path)

    last = "eager (query_length)"
    assert first["verdicts"] == ["replay (exact)", "eager (input_address)", last]
    assert [r["verdicts"] for r in others] == [["replay (exact)", "eager (adopted)", last]] * (
        ranks - 1
    )


def test_a_role_that_some_ranks_have_is_guarded_with_a_group_of_its_own(tmp_path: Path) -> None:
    results = programs("two_groups", 3, tmp_path)

    with_both = ["replay (exact)", "replay (exact)", "pad (padded)", "pad (padded)"]
    assert results[0] == {"verdicts": with_both, "groups": ["0[0-2]", results[0]["groups"][1]]}
    assert results[2] == results[0]
    assert results[1] == {"verdicts": ["replay (exact)", "pad (padded)"], "groups": ["0[0-2]"]}


def test_a_rank_that_skips_the_drafter_is_refused_and_the_other_one_learns_of_it(
    tmp_path: Path,
) -> None:
    told, refused = (result["message"] for result in programs("refused", 2, tmp_path))

    sides = "rank 0: replay of drafter/full 4x2; rank 1: replay of target/full 4x2"
    assert refused.startswith("4 [0]: rank 1: step 4 of 0[0-1] is refused: rank 0 decided on")
    assert told.startswith("4 [1]: rank 0: rank 1 refused step 4 of 0[0-1]")
    assert sides in refused
    assert sides in told


def test_nodes_that_differ_are_named_in_observe(tmp_path: Path) -> None:
    for result in run("agreed_programs:nodes_that_differ", 2, tmp_path, MODE="observe"):
        assert result == {"divergences": [["nodes_differ", 51]], "error": ""}


def test_nodes_that_differ_launch_nothing_more_in_enforce(tmp_path: Path) -> None:
    for result in run("agreed_programs:nodes_that_differ", 2, tmp_path, MODE="enforce"):
        assert result["divergences"] == [["nodes_differ", 51]]
        assert "51" in result["error"]


def test_after_a_rank_has_ended_without_a_word_the_next_step_is_refused(tmp_path: Path) -> None:
    told = tmp_path / "told"
    # Neither rank leaves a result: both end at once, as a rank that crashes does.
    with pytest.raises(FileNotFoundError):
        run("agreed_programs:peer_that_ends", 2, tmp_path, TOLD=str(told))

    error = json.loads(told.read_text())
    assert (error["step"], error["ranks"]) == (1, [1])
    assert "has ended without a word after step 1" in error["message"]
