"""What an examination reads of a black box beyond the state of its rank."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import msgspec
import pytest

from graphguard import BatchDescriptor
from graphguard.blackbox.events import Event
from graphguard.blackbox.writer import BlackBox, open_box
from graphguard.watch.examining.examination import first_run, with_current_notes
from graphguard.watch.looking.ranks import RankState
from tests.unit.watch.states import rank

BATCH = BatchDescriptor.of(16, 2)


@pytest.fixture
def box(tmp_path: Path) -> Iterator[BlackBox]:
    box = open_box(tmp_path / "boxes", 64)
    yield box
    box.disown()


def launch(box: BlackBox, step: int, digest: int = 7, *, ends: bool = True) -> None:
    events = [Event.CHECK, Event.REPLAY_BEGIN, *([Event.REPLAY_END] if ends else [])]
    for event in events:
        box.record(event, role="target", group="tp", step=step, digest=digest, batch=BATCH)


def state_of(box: BlackBox, note: str = "") -> RankState:
    return msgspec.structs.replace(rank(0, note=note), ring=str(box.path))


def test_a_graph_that_was_never_launched_before_runs_for_the_first_time(box: BlackBox) -> None:
    launch(box, 1)
    launch(box, 2, digest=9, ends=False)
    assert first_run(state_of(box)) == "it runs target 16x2 for the first time"


def test_one_that_was_does_not(box: BlackBox) -> None:
    launch(box, 1)
    launch(box, 2, ends=False)
    assert first_run(state_of(box)) == ""


def test_what_was_overwritten_is_not_taken_for_a_first_time(box: BlackBox) -> None:
    for step in range(1, 100):
        launch(box, step)
    launch(box, 100, digest=9, ends=False)
    assert first_run(state_of(box)) == ""


def test_a_note_counts_until_the_next_step(box: BlackBox) -> None:
    launch(box, 1)
    box.note("step failed: ValueError")
    state = state_of(box, "step failed: ValueError")
    assert with_current_notes([state]) == (state,)
    launch(box, 2)
    assert with_current_notes([state])[0].note == ""


def test_a_box_that_is_gone_says_nothing(tmp_path: Path) -> None:
    state = msgspec.structs.replace(rank(0, note="x"), ring=str(tmp_path / "none.ring"))
    assert first_run(state) == ""
    assert with_current_notes([state])[0].note == ""
