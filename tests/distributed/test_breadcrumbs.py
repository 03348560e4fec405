"""How far the replays of real ranks have got, as another process reads it."""

from __future__ import annotations

import threading
import time
from contextlib import suppress
from pathlib import Path

from graphguard.errors import BlackBoxNotReady
from graphguard.watch.breadcrumbs import CrumbState, read_breadcrumbs
from graphguard.watch.ranks import rank_states
from tests.distributed import ranks
from tests.distributed.breadcrumb_programs import CALLS, STUCK_AFTER

SECONDS = 60.0


def test_marks_follow_the_replays(tmp_path: Path) -> None:
    results = ranks.run(
        "breadcrumb_programs:replays_that_end",
        2,
        tmp_path,
        GRAPHGUARD_BREADCRUMBS="1",
        GRAPHGUARD_DIR=str(tmp_path / "crumbs"),
    )
    for said in results:
        assert said == [f"target/full 4x2: {done} replays, none in flight" for done in range(4)]


def test_a_stall_in_a_replay_is_named_with_its_collective(tmp_path: Path) -> None:
    directory, go_on = tmp_path / "crumbs", tmp_path / "go-on"
    results: list[object] = []
    job = threading.Thread(
        target=lambda: results.extend(
            ranks.run(
                "breadcrumb_programs:a_stall_in_a_replay",
                2,
                tmp_path,
                GRAPHGUARD_BREADCRUMBS="1",
                GRAPHGUARD_DIR=str(directory),
                GRAPHGUARD_RING_ENTRIES="256",
                GO_ON=str(go_on),
            )
        )
    )
    job.start()
    try:
        stuck = _stuck(directory)
        of_ranks = {state.rank: state.crumbs for state in rank_states(directory)}
    finally:
        go_on.touch()
        job.join(SECONDS * 2)
    assert results == [True, True]
    assert of_ranks == {0: (stuck,), 1: ()}
    assert (stuck.reached, stuck.positions, stuck.launched) == (STUCK_AFTER, CALLS, 1)
    assert stuck.next_call == "all_reduce of 48 float32 over 0[0-1]"
    assert str(stuck) == (
        "target/full 4x2: replay 1 has passed 2 of 5 calls; "
        "next is all_reduce of 48 float32 over 0[0-1]"
    )
    (path,) = directory.glob("breadcrumbs.rank0.*.crumbs")
    (state,) = read_breadcrumbs(path)
    assert (state.finished, state.in_flight, state.next_call) == (1, 0, "")


def _stuck(directory: Path) -> CrumbState:
    """Wait until rank 0 stands where it must, as another process sees it."""
    deadline = time.monotonic() + SECONDS
    while time.monotonic() < deadline:
        for path in directory.glob("breadcrumbs.rank0.*.crumbs"):
            # It may have been made just now, and hold nothing yet.
            with suppress(BlackBoxNotReady):
                for state in read_breadcrumbs(path):
                    if state.in_flight and state.reached == STUCK_AFTER:
                        return state
        time.sleep(0.02)
    raise AssertionError("rank 0 was not seen to stand in its replay")
