"""The newest records of a ring, as they come."""

from __future__ import annotations

from pathlib import Path

import pytest

from graphguard.blackbox import reading
from graphguard.blackbox.events import Event
from graphguard.blackbox.reading import read
from graphguard.blackbox.tail import Tail
from graphguard.blackbox.writer import BlackBox, open_box
from graphguard.errors import BlackBoxError


def write(box: BlackBox, first: int, last: int) -> None:
    for step in range(first, last + 1):
        box.record(Event.CHECK, role="target", group="tp", step=step)


@pytest.mark.parametrize("written", [0, 1, 7, 64, 65, 1000, 3000])
@pytest.mark.parametrize("newest", [1, 5, 64, 10_000])
def test_the_newest_records_are_those_that_a_whole_reading_ends_with(
    written: int, newest: int, tmp_path: Path
) -> None:
    box = open_box(tmp_path, 64)
    write(box, 1, written)

    whole = read(box.path)
    part = read(box.path, newest)

    first = whole.written - newest + 1
    assert part.records == tuple(record for record in whole.records if record.number >= first)
    assert (part.rank, part.pid, part.written, part.running) == (
        whole.rank,
        whole.pid,
        whole.written,
        whole.running,
    )
    assert part.damaged == 0
    assert not part.writing


def test_times_are_known_though_the_record_of_the_clock_is_older(tmp_path: Path) -> None:
    box = open_box(tmp_path, 4096)
    write(box, 1, 900)

    assert [record.time_ns for record in read(box.path, 3).records] == [
        record.time_ns for record in read(box.path).records[-3:]
    ]
    assert read(box.path, 3).records[0].time_ns > 0


def test_a_file_that_is_no_ring_is_refused_by_the_same_words(tmp_path: Path) -> None:
    box = open_box(tmp_path, 64)
    cut = tmp_path / "blackbox.rank0.1.ring"
    cut.write_bytes(box.path.read_bytes()[:-64])

    for path in (cut,):
        with pytest.raises(BlackBoxError) as whole:
            read(path)
        with pytest.raises(BlackBoxError) as part:
            read(path, 10)
        assert str(part.value) == str(whole.value)


def test_each_record_is_told_once(tmp_path: Path) -> None:
    box = open_box(tmp_path, 4096)
    tail = Tail(box.path)
    told: list[int] = []
    for last in (0, 1, 2, 500, 1500, 1500, 1501):
        write(box, len(told) + 1, last)
        told += [record.step for record in tail.look()]

    assert told == list(range(1, 1502))
    assert tail.missed == 0
    assert tail.counted_from == 1


def test_what_was_overwritten_between_two_looks_is_counted(tmp_path: Path) -> None:
    box = open_box(tmp_path, 64)
    tail = Tail(box.path)
    write(box, 1, 10)
    tail.look()
    before = read(box.path).written
    write(box, 11, 500)

    seen = tail.look()

    assert seen[-1].step == 500
    assert tail.missed == seen[0].number - before - 1
    assert tail.missed > 400


def test_the_first_look_may_be_bounded(tmp_path: Path) -> None:
    box = open_box(tmp_path, 4096)
    write(box, 1, 100)
    tail = Tail(box.path, first=10)

    assert [record.step for record in tail.look()] == list(range(91, 101))
    assert tail.counted_from > 80


def test_nothing_is_read_where_nothing_has_changed(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    box = open_box(tmp_path, 64)
    write(box, 1, 3)
    tail = Tail(box.path)
    tail.look()
    monkeypatch.delattr(reading, "read")

    assert tail.look() == ()
