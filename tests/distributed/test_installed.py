"""``graphguard.install()`` on real ranks: programs that say nothing of their graphs."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.distributed.ranks import run


@pytest.mark.parametrize("mode", ["observe", "enforce"])
def test_ranks_that_launch_the_same_agree(mode: str, tmp_path: Path) -> None:
    result = {
        "agreed": True,
        "step": 4,
        "call": "all_reduce(16 float32, sum) on 0[0-1]",
        "divergences": 0,
    }
    assert run("installed_programs:same_launches", 2, tmp_path, MODE=mode) == [result] * 2


def test_another_graph_on_one_rank_is_refused_before_its_launch(tmp_path: Path) -> None:
    program = "installed_programs:another_graph_on_the_last_rank"
    first, last = run(program, 2, tmp_path, MODE="enforce")

    assert last["told"].startswith("2 [0]: rank 1: step 2 of 0[0-1] is refused: rank 0 decided on")
    assert "replay of graph/full/pool0.0" in last["told"]
    assert first["divergences"] == ["peer_refused"]


def test_another_graph_on_one_rank_is_a_finding_in_observe(tmp_path: Path) -> None:
    program = "installed_programs:another_graph_on_the_last_rank"
    results = run(program, 2, tmp_path, MODE="observe")

    assert [result["told"] for result in results] == ["", ""]
    assert "differs" in [kind for result in results for kind in result["divergences"]]


def test_ranks_that_captured_different_graphs_launch_none(tmp_path: Path) -> None:
    for result in run("installed_programs:captures_that_differ", 2, tmp_path):
        assert len(result["errors"]) == 2
        assert "did not capture the same for graph/full" in result["errors"][0]
        assert result["errors"][1] == result["errors"][0]
