from __future__ import annotations

from pathlib import Path

import pytest

from graphguard.blackbox.events import DivergenceKind, Event
from graphguard.blackbox.merge import Standing, Timeline, merge
from graphguard.blackbox.reading import read
from tests.unit.blackbox.rings import EAGER, PADDED, Rank, open_ranks


@pytest.fixture
def ranks(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> list[Rank]:
    return open_ranks(tmp_path, 3, monkeypatch)


def merged(ranks: list[Rank]) -> Timeline:
    return merge([read(rank.box.path) for rank in ranks])


def standing(timeline: Timeline, member: int, group: str = "tp") -> Standing:
    (found,) = (s for s in timeline.standings if (s.member, s.group) == (member, group))
    return found


def test_rank_that_did_not_come_as_far_is_behind(ranks: list[Rank]) -> None:
    for rank, steps in zip(ranks, (5, 3, 5), strict=True):
        for step in range(1, steps + 1):
            rank.run(step)
    timeline = merged(ranks)
    assert [(s.member, s.step, s.behind) for s in timeline.standings] == [
        (0, 5, 0),
        (1, 3, 2),
        (2, 5, 0),
    ]


def test_launch_that_has_not_ended_is_known(ranks: list[Rank]) -> None:
    for rank in ranks:
        rank.run(1)
        rank.check(2)
    ranks[0].begin()
    ranks[1].begin()
    ranks[1].diverge(2, DivergenceKind.DIFFERS, peer=2)
    ranks[2].begin()
    ranks[2].end()
    timeline = merged(ranks)
    begun = [standing(timeline, member).begun for member in range(3)]
    assert [record.event_name if record else None for record in begun] == [
        "replay_begin",
        "replay_begin",
        None,
    ]
    last = [standing(timeline, member).last for member in range(3)]
    assert [record.event_name if record else None for record in last] == [
        "replay_begin",
        "divergence",
        "replay_end",
    ]


def test_launch_of_one_role_is_not_ended_by_that_of_another(ranks: list[Rank]) -> None:
    ranks[0].check(1, role="target")
    ranks[0].begin()
    ranks[0].run(2, role="drafter")
    begun = standing(merged(ranks[:1]), 0).begun
    assert begun is not None
    assert (begun.role, begun.step) == ("target", 1)


def test_record_that_names_a_step_to_come_does_not_put_a_rank_there(ranks: list[Rank]) -> None:
    ranks[0].run(1)
    ranks[0].box.record(Event.VOTE, group="tp", step=90)
    ranks[0].diverge(91, DivergenceKind.PEER_GONE, peer=1)
    assert standing(merged(ranks[:1]), 0).step == 1


def test_groups_are_told_apart(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    first, second = open_ranks(tmp_path, 2, monkeypatch)
    for rank in (first, second):
        rank.run(1)
    pipeline = Rank(first.box, "pp")
    for step in (1, 2, 3):
        pipeline.run(step)
    timeline = merged([first, second])
    assert [(s.member, s.group, s.step, s.behind) for s in timeline.standings] == [
        (0, "pp", 3, 0),
        (0, "tp", 1, 0),
        (1, "tp", 1, 0),
    ]


def test_guard_without_a_group_is_never_behind(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    ranks = [Rank(rank.box, "") for rank in open_ranks(tmp_path, 2, monkeypatch)]
    ranks[0].run(7)
    ranks[1].run(3, EAGER, "3x3")
    timeline = merged(ranks)
    assert [(s.group, s.step, s.behind) for s in timeline.standings] == [("", 7, 0), ("", 3, 0)]
    assert timeline.first_difference is None
    assert timeline.comparisons == ()


def test_rank_that_did_nothing_is_there(ranks: list[Rank]) -> None:
    ranks[0].run(1)
    ranks[1].box.note("hello")
    timeline = merged(ranks)
    told = [(s.member, s.group, s.last and s.last.event_name) for s in timeline.standings]
    assert told == [(1, "", "note"), (0, "tp", "replay_end"), (2, "", None)]


def test_end_of_a_process_is_no_place_to_stand(ranks: list[Rank]) -> None:
    ranks[0].run(1)
    ranks[0].box.close()
    assert [(s.group, s.step) for s in merged(ranks[:1]).standings] == [("tp", 1)]


def test_end_of_a_process_does_not_hide_what_it_did_last(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    first, second = (Rank(rank.box, "") for rank in open_ranks(tmp_path, 2, monkeypatch))
    first.run(1)
    for rank in (first, second):
        rank.box.close()
    last = [standing.last for standing in merged([first, second]).standings]
    assert [record.event_name if record else None for record in last] == ["replay_end", "closed"]


def test_records_come_by_time(ranks: list[Rank]) -> None:
    for step in range(1, 4):
        for rank in reversed(ranks):
            rank.run(step)
    shown = merged(ranks).records()
    assert [member for member, _ in shown[:9]] == [2, 2, 2, 1, 1, 1, 0, 0, 0]
    times = [record.time_ns for _, record in shown]
    assert times == sorted(times)
    assert len(shown) == 27


def test_last_steps_are_those_of_the_group_and_not_of_each_rank(ranks: list[Rank]) -> None:
    for rank, steps in zip(ranks, (6, 3, 6), strict=True):
        for step in range(1, steps + 1):
            rank.run(step)
    ranks[1].box.note("first")
    ranks[1].box.note("second")
    ranks[1].box.note("third")
    shown = merged(ranks).records(last=2)
    assert {(member, record.step) for member, record in shown if record.step} == {
        (0, 5),
        (0, 6),
        (2, 5),
        (2, 6),
    }
    assert [record.note for _, record in shown if not record.step] == ["second", "third"]
    assert merged(ranks).records(last=0) == []


def test_divergences_and_damage_of_all_ranks_are_counted(ranks: list[Rank]) -> None:
    for rank in ranks:
        rank.run(1)
    ranks[2].diverge(1, DivergenceKind.DIFFERS, peer=0)
    ranks[1].diverge(1, DivergenceKind.REFUSED, peer=0)
    for rank in ranks[:2]:
        number = read(rank.box.path).records[0].number
        with rank.box.path.open("r+b") as file:
            file.seek(4096 + 128 * 128 + (number - 1) * 64 + 20)
            file.write(b"\xff")
    timeline = merged(ranks)
    assert timeline.damaged == 2
    assert [(member, record.detail) for member, record in timeline.divergences] == [(2, 1), (1, 3)]


def test_time_of_the_newest_record_is_that_of_all_ranks(ranks: list[Rank]) -> None:
    for rank in ranks:
        rank.run(1, PADDED, "15x2")
    timeline = merged(ranks)
    assert timeline.newest_ns == timeline.boxes[2].records[-1].time_ns


def test_nothing_recorded_is_nothing_found(ranks: list[Rank]) -> None:
    timeline = merged(ranks)
    assert (timeline.first_difference, timeline.newest_ns, timeline.damaged) == (None, 0, 0)
    assert timeline.records() == timeline.records(last=3) == []
