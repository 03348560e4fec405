from __future__ import annotations

from pathlib import Path

import pytest

from graphguard.blackbox.choosing import Rings
from graphguard.blackbox.following import Follower, News
from tests.unit.blackbox.rings import Rank, open_ranks


def notes(news: News) -> list[tuple[int, str]]:
    return [(member, record.note) for member, record in news.records]


@pytest.fixture
def ranks(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> list[Rank]:
    return open_ranks(tmp_path, 2, monkeypatch, entries=16)


def test_each_record_is_told_once_and_by_time(tmp_path: Path, ranks: list[Rank]) -> None:
    follower = Follower(Rings([tmp_path]))
    ranks[1].box.note("a")
    ranks[0].box.note("b")
    assert notes(follower.look()) == [(1, "a"), (0, "b")]
    assert notes(follower.look()) == []
    ranks[0].box.note("c")
    ranks[1].box.note("d")
    ranks[0].box.note("e")
    assert notes(follower.look()) == [(0, "c"), (1, "d"), (0, "e")]


def test_record_that_was_begun_earlier_and_ended_later_is_told(
    tmp_path: Path, ranks: list[Rank]
) -> None:
    path = ranks[0].box.path
    follower = Follower(Rings([tmp_path]))
    for text in ("a", "b", "c"):
        ranks[0].box.note(text)
    whole = path.read_bytes()
    slot = 4096 + 128 * 128 + 2 * 64
    with path.open("r+b") as file:
        file.seek(slot)
        file.write(bytes(64))
    before = [text for _, text in notes(follower.look())]
    with path.open("r+b") as file:
        file.seek(slot)
        file.write(whole[slot : slot + 64])
    ranks[0].box.note("d")
    after = [text for _, text in notes(follower.look())]
    assert sorted([*before, *after]) == ["a", "b", "c", "d"]
    assert len(before) == 2


def test_box_that_is_opened_later_is_picked_up(
    tmp_path: Path, ranks: list[Rank], monkeypatch: pytest.MonkeyPatch
) -> None:
    follower = Follower(Rings([tmp_path]))
    assert follower.look().opened == (0, 1)
    monkeypatch.setenv("RANK", "0")
    (again,) = open_ranks(tmp_path, 1, monkeypatch)
    again.box.note("again")
    ranks[1].box.note("a")
    news = follower.look()
    # The ring of a job of one process is not of the same job.
    assert [Path(box.path) for box in news.chosen.boxes] == [again.box.path]
    assert (news.opened, notes(news)) == ((0,), [(0, "again")])


def test_records_that_were_overwritten_between_two_looks_are_counted(
    tmp_path: Path, ranks: list[Rank]
) -> None:
    follower = Follower(Rings([tmp_path]))
    ranks[0].box.note("0")
    follower.look()
    written = ranks[0].box.ring.written
    for _ in range(40):
        ranks[0].box.note("x")
    news = follower.look()
    assert news.missed == ranks[0].box.ring.written - written - 16
    assert follower.look().missed == 0


def test_following_ends_when_every_process_has_ended(tmp_path: Path, ranks: list[Rank]) -> None:
    follower = Follower(Rings([tmp_path]))
    assert not follower.look().ended
    ranks[0].box.close()
    assert not follower.look().ended
    ranks[1].box.disown()
    assert follower.look().ended


def test_nothing_there_yet_is_no_end(tmp_path: Path) -> None:
    assert not Follower(Rings([tmp_path])).look().ended
