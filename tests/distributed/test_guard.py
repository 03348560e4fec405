"""The guard on real ranks."""

from pathlib import Path

import pytest

from tests.distributed.ranks import run


@pytest.mark.parametrize("ranks", [2, 4])
def test_ranks_decide_alike_and_outputs_equal_eager_runs(ranks: int, tmp_path: Path) -> None:
    results = run("guarded_steps", ranks, tmp_path)

    assert results[0]["steps"] == [
        ["replay (exact)", True],
        ["pad (padded)", True],
        ["recapture (query_length)", True],
        ["replay (exact)", True],
    ]
    assert results[0]["batches"] == ["1x2", "2x2", "4x2", "8x2", "16x2", "15x1"]
    assert all(result == results[0] for result in results)


def test_what_one_rank_alone_can_see_is_refused_where_ranks_communicate(tmp_path: Path) -> None:
    nothing, seen = run("moved_tensor_on_one_rank", 2, tmp_path)

    assert nothing == []
    assert "rank 1: target/full cannot replay 4x2: a static tensor has moved" in seen[0]
    assert "only this rank can see that" in seen[0]
