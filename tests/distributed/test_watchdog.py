"""The watchdogs of real ranks that have more to do than the machine has cores for."""

from __future__ import annotations

from pathlib import Path

from tests.distributed.ranks import run

RANKS = 8
LIMIT = 5.0


def test_eight_busy_ranks_are_no_stall(tmp_path: Path) -> None:
    directory = tmp_path / "boxes"
    results = run(
        "watched_programs:busy",
        RANKS,
        tmp_path,
        GRAPHGUARD_DIR=str(directory),
        GRAPHGUARD_RING_ENTRIES="4096",
        GRAPHGUARD_STALL_SECONDS=str(LIMIT),
    )

    for result in results:
        assert result["limit"] == LIMIT
        assert result["ended"] >= result["steps"] > 10
        assert 0 <= result["beat_age"] < LIMIT
        # Else the machine was so slow that this says nothing.
        assert result["longest"] < LIMIT
        assert result["stalls"] == 0
    assert list(directory.glob("stall-*")) == []
