"""The state of ranks, from real rings of real processes."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from graphguard import _core
from graphguard.blackbox.events import DivergenceKind, Event
from graphguard.blackbox.writer import open_box
from graphguard.watch.looking import ranks as watched
from graphguard.watch.looking.ranks import Ranks, RankState, rank_states
from tests.unit.blackbox.rings import EAGER, PADDED, open_ranks

PATIENCE = 20.0

RANK = """
import sys
from pathlib import Path
from graphguard.blackbox.events import Event
from graphguard.blackbox.writer import open_box
box = open_box(Path(sys.argv[1]), 64)
box.record(Event.EAGER_BEGIN, role="target", group="tp", step=7)
print(flush=True)
sys.stdin.read()
box.close()
"""


@pytest.fixture
def rank(tmp_path: Path) -> Iterator[subprocess.Popen[bytes]]:
    """A process with a ring, in a launch. It closes the ring when its input ends."""
    process = subprocess.Popen(
        [sys.executable, "-c", RANK, str(tmp_path)],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        env={**os.environ, "RANK": "3", "WORLD_SIZE": "8"},
    )
    assert process.stdout is not None
    process.stdout.readline()
    yield process
    process.kill()
    process.communicate(timeout=PATIENCE)


def until(ranks: Ranks, holds: Callable[[RankState], bool]) -> RankState:
    deadline = time.monotonic() + PATIENCE
    while not holds(state := ranks.look()[0]):
        assert time.monotonic() < deadline, state
        time.sleep(0.02)
    return state


def test_a_rank_in_a_launch_is_in_it(rank: subprocess.Popen[bytes], tmp_path: Path) -> None:
    (state,) = rank_states(tmp_path)

    assert (state.rank, state.world_size, state.pid) == (3, 8, rank.pid)
    assert state.host == os.uname().nodename
    assert state.process.alive
    assert state.process.threads
    last = state.last["tp"]
    assert (last.step, last.event, last.in_flight, last.role) == (7, "eager_begin", True, "target")
    assert last.text == "began the eager run of target"
    assert 0 <= state.looked_ns - last.time_ns < 60e9
    assert state.pulse is not None
    assert not state.ended


def test_a_rank_that_is_killed_has_died(rank: subprocess.Popen[bytes], tmp_path: Path) -> None:
    ranks = Ranks([tmp_path])
    assert not ranks.look()[0].died
    rank.kill()

    zombie = until(ranks, lambda state: state.died)
    assert zombie.process.state in ("zombie", "gone")
    rank.wait(PATIENCE)
    gone = until(ranks, lambda state: state.process.state == "gone")
    assert gone.died
    assert gone.last["tp"].in_flight


def test_a_rank_that_closed_its_box_has_ended_and_not_died(
    rank: subprocess.Popen[bytes], tmp_path: Path
) -> None:
    ranks = Ranks([tmp_path])
    ranks.look()
    rank.communicate(timeout=PATIENCE)

    state = until(ranks, lambda state: state.ended)
    assert state.closed
    assert not state.died


def test_a_stopped_rank_is_stopped(rank: subprocess.Popen[bytes], tmp_path: Path) -> None:
    ranks = Ranks([tmp_path], max_threads=0)
    rank.send_signal(signal.SIGSTOP)

    state = until(ranks, lambda state: state.process.state == "stopped")
    assert state.process.alive
    assert not state.ended


def test_what_comes_is_added_to_what_was_there(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    first, second = open_ranks(tmp_path, 2, monkeypatch)
    ranks = Ranks([tmp_path])
    for step in (1, 2, 3):
        first.run(step)
    second.run(1, PADDED, "15x2")
    before = ranks.look()
    first.check(4, EAGER)
    first.begin()
    second.diverge(2, DivergenceKind.DIFFERS, peer=0)
    after = ranks.look()

    assert [state.rank for state in before] == [0, 1]
    assert before[0].last["tp"].text == "ended replay of target 16x2"
    assert [state.verdicts for state in before] == [{"replay": 3}, {"pad": 1}]
    assert [state.verdicts for state in after] == [{"eager": 1, "replay": 3}, {"pad": 1}]
    assert after[0].last["tp"].step == 4
    assert after[0].last["tp"].in_flight
    assert after[0].last["tp"].verdict == "eager (query_length)"
    assert [state.divergences for state in after] == [0, 1]


def test_each_group_has_a_last_step_of_its_own(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (rank,) = open_ranks(tmp_path, 1, monkeypatch)
    rank.run(5)
    rank.group = "dp"
    rank.run(2, batch="8x1", role="drafter", digest=0x12)

    (state,) = rank_states(tmp_path)

    assert {name: (last.step, last.role, last.batch) for name, last in state.last.items()} == {
        "dp": (2, "drafter", "8x1"),
        "tp": (5, "target", "16x2"),
    }
    assert state.last["dp"].digest == 0x12


def test_the_last_note_that_names_an_error_is_kept(tmp_path: Path) -> None:
    box = open_box(tmp_path, 64)
    for note in ("armed", "step failed: RuntimeError", "target serves 16 graphs"):
        box.note(note)

    assert rank_states(tmp_path)[0].note == "step failed: RuntimeError"


def test_only_the_processes_that_are_asked_for_are_looked_at(
    rank: subprocess.Popen[bytes], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    # A newer ring of the same rank hides the older one, unless that is asked for.
    monkeypatch.setenv("RANK", "3")
    monkeypatch.setenv("WORLD_SIZE", "8")
    open_box(tmp_path, 64).record(Event.SEALED)

    assert [state.pid for state in rank_states(tmp_path)] == [os.getpid()]
    assert [state.pid for state in rank_states(tmp_path, frozenset({rank.pid}))] == [rank.pid]
    assert rank_states([tmp_path], frozenset()) == ()


def test_a_rank_of_another_machine_is_not_looked_for_here(tmp_path: Path) -> None:
    path = tmp_path / "blackbox.rank0.1.ring"
    size = _core.ring_bytes(64)
    path.write_bytes(bytes(size))
    with path.open("r+b") as file:
        ring = _core.BlackBox(file.fileno(), size, 0, 2, os.getpid(), "elsewhere", 64)

    (state,) = rank_states(tmp_path)
    assert (state.process.state, state.process.alive, state.died) == ("elsewhere", True, False)
    assert state.process.cpu_ns == 0
    del ring


def test_another_process_of_the_same_id_is_not_taken_for_the_rank(
    rank: subprocess.Popen[bytes], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    # The ring is older than the process.
    monkeypatch.setattr(watched, "_opened_ns", lambda path: 1)

    (state,) = rank_states(tmp_path)

    assert state.process.state == "elsewhere"
    assert state.process.threads == ()


def test_files_that_are_no_rings_are_passed_over(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    open_ranks(tmp_path, 1, monkeypatch)
    (tmp_path / "blackbox.rank1.1.ring").write_bytes(b"")
    (tmp_path / "blackbox.rank2.1.ring").write_bytes(os.urandom(30_000))
    (tmp_path / "blackbox.rank3.1.ring").symlink_to("/nowhere")
    os.mkfifo(tmp_path / "blackbox.rank4.1.ring")

    assert [state.rank for state in rank_states(tmp_path)] == [0]


def test_a_ring_in_the_place_of_another_begins_anew(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "first").mkdir(0o700)
    (tmp_path / "second").mkdir(0o700)
    (first,) = open_ranks(tmp_path / "first", 1, monkeypatch)
    (second,) = open_ranks(tmp_path / "second", 1, monkeypatch)
    first.run(900)
    second.run(2, PADDED)
    ranks = Ranks([tmp_path / "first"])
    ranks.look()
    second.box.path.rename(first.box.path)

    (state,) = ranks.look()

    assert state.last["tp"].step == 2
    assert state.verdicts == {"pad": 1}
