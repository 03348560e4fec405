"""The ranks of the GPU suite on emulated graphs: their program works, whatever it will measure."""

from __future__ import annotations

from pathlib import Path

from tests.gpu.suite import ranks
from tests.gpu.suite.settings import Settings


def test_a_rank_that_would_replay_another_graph_adopts_and_goes_on(tmp_path: Path) -> None:
    settings = Settings(str(tmp_path), emulated=True)
    served = ranks.run("serving", ["first-large", "enforce"], tmp_path / "run", settings, 100.0)

    assert [rank.code for rank in served] == [0, 0], [rank.log for rank in served]
    assert [rank.value("different end") for rank in served] == ["replay (exact)", "pad (adopted)"]
    assert all(rank.when("after end") is not None for rank in served)


def test_ranks_that_do_not_end_are_killed_and_what_they_reported_is_kept(tmp_path: Path) -> None:
    settings = Settings(str(tmp_path), emulated=True)

    def long_enough(seen: list[tuple[ranks.Event, ...]]) -> bool:
        return bool(seen[0])

    arguments = ["soak", "enforce", "600"]
    (rank,) = ranks.run(
        "serving", arguments, tmp_path / "run", settings, 100.0, number=1, until=long_enough
    )
    assert rank.code is None
    assert rank.events
