"""How far the replays of real ranks have got, as another process reads it."""

from __future__ import annotations

import json
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

from graphguard.errors import BlackBoxNotReady
from graphguard.watch.breadcrumbs import CrumbState, read_breadcrumbs
from graphguard.watch.looking.ranks import rank_states
from tests.distributed import ranks
from tests.distributed.breadcrumb_programs import CALLS, STUCK_AFTER

SECONDS = 60.0
CALL = "all_reduce of 48 float32 over 0[0-1]"


def test_a_stall_in_a_replay_is_named_with_its_collective(tmp_path: Path) -> None:
    directory = tmp_path / "crumbs"
    with _stalled("a_stall_in_a_replay", tmp_path, directory):
        stuck = _stuck(directory)
        of_ranks = {state.rank: state.crumbs for state in rank_states(directory)}
    assert of_ranks == {0: (stuck,), 1: ()}
    assert (stuck.reached, stuck.positions, stuck.launched) == (STUCK_AFTER, CALLS, 1)
    assert stuck.next_call == CALL
    assert str(stuck) == f"target/full 4x2: replay 1 has passed 2 of 5 calls; next is {CALL}"
    (path,) = directory.glob("breadcrumbs.rank0.*.crumbs")
    (state,) = read_breadcrumbs(path)
    assert (state.finished, state.in_flight, state.next_call) == (1, 0, "")


def test_the_verdict_of_a_stall_says_which_collective_it_is(tmp_path: Path) -> None:
    directory = tmp_path / "crumbs"
    with _stalled("a_stall_that_is_examined", tmp_path, directory, GRAPHGUARD_STALL_SECONDS="1"):
        verdict = _verdict(directory)
    assert verdict["waiting"] == [0]
    assert verdict["collective"] == {"position": STUCK_AFTER + 1, "of": CALLS, "operation": CALL}


@contextmanager
def _stalled(program: str, folder: Path, directory: Path, **environment: str) -> Iterator[None]:
    """Run ranks of which one stands, until what is inside has looked at them."""
    go_on = folder / "go-on"
    environment |= {
        "GRAPHGUARD_BREADCRUMBS": "1",
        "GRAPHGUARD_DIR": str(directory),
        "GRAPHGUARD_RING_ENTRIES": "256",
        "GO_ON": str(go_on),
    }
    results: list[object] = []
    job = threading.Thread(
        target=lambda: results.extend(
            ranks.run(f"breadcrumb_programs:{program}", 2, folder, **environment)
        )
    )
    job.start()
    try:
        yield
    finally:
        go_on.touch()
        job.join(SECONDS * 2)
    assert results == [True, True]


def _verdict(directory: Path) -> dict[str, Any]:
    """Wait for the verdict of the stall."""
    deadline = time.monotonic() + SECONDS
    while time.monotonic() < deadline:
        for path in directory.glob("stall-*/verdict.json"):
            # It may be half written.
            with suppress(ValueError):
                told: dict[str, Any] = json.loads(path.read_text())
                return told
        time.sleep(0.05)
    raise AssertionError("nobody gave a verdict")


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
