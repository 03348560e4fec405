from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from msgspec.json import decode

from graphguard.blackbox.choosing import load
from graphguard.blackbox.events import DivergenceKind, Flag
from graphguard.blackbox.merge import merge
from graphguard.blackbox.reading import read
from graphguard.reporters import blackbox_json
from tests.unit.blackbox.rings import EAGER, PADDED, Rank, open_ranks


@pytest.fixture
def ranks(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> list[Rank]:
    return open_ranks(tmp_path, 3, monkeypatch)


def lines(ranks: list[Rank], last: int | None = None) -> list[dict[str, Any]]:
    timeline = merge([read(rank.box.path) for rank in ranks])
    shown = blackbox_json.records(timeline.boxes, timeline.records(last))
    return [decode(line) for line in shown.splitlines()]


def summary(ranks: list[Rank]) -> dict[str, Any]:
    chosen = load([ranks[0].box.path.parent])
    (line,) = blackbox_json.summary(merge(chosen.boxes), chosen).splitlines()
    found: dict[str, Any] = decode(line)
    return found


def test_record_is_an_object_with_all_that_it_holds(ranks: list[Rank]) -> None:
    ranks[1].check(17, PADDED, "15x2", digest=0xABC, flags=Flag.ENFORCE)
    box = read(ranks[1].box.path)
    assert lines(ranks) == [
        {
            "rank": 1,
            "step": 17,
            "role": "target",
            "event": "check",
            "verdict": "pad (padded)",
            "time_ns": box.records[0].time_ns,
            "group": "tp",
            "action": "pad",
            "reason": "padded",
            "batch": "15x2",
            "digest": "0000000000000abc",
            "peer": None,
            "divergence": None,
            "note": None,
            "flags": ["enforce"],
            "detail": 0,
            "number": box.records[0].number,
            "pid": box.pid,
            "host": box.host,
        }
    ]


def test_records_of_all_ranks_come_by_time(ranks: list[Rank]) -> None:
    ranks[2].box.note("hello")
    ranks[0].diverge(3, DivergenceKind.DIFFERS, peer=2)
    ranks[1].box.close()
    shown = lines(ranks)
    assert [(line["rank"], line["event"]) for line in shown] == [
        (2, "note"),
        (0, "divergence"),
        (1, "closed"),
    ]
    assert (shown[0]["note"], shown[0]["role"], shown[0]["group"]) == ("hello", "", None)
    assert (shown[0]["verdict"], shown[0]["batch"], shown[0]["action"]) == (None, None, None)
    assert (shown[1]["divergence"], shown[1]["peer"]) == ("differs", 2)


@pytest.mark.parametrize(
    "name", ["\x1b[2J", "\x7f", "\x85", "\u2028", "\u202e", "\U000e0001", "größe 図"]
)
def test_name_comes_back_whole_and_moves_no_cursor(ranks: list[Rank], name: str) -> None:
    ranks[0].run(1, role=name)
    timeline = merge([read(ranks[0].box.path)])
    shown = blackbox_json.records(timeline.boxes, timeline.records())
    assert shown.replace("\n", "").isprintable()
    assert [decode(line)["role"] for line in shown.splitlines()] == [name] * 3


def test_nothing_recorded_is_no_line(ranks: list[Rank]) -> None:
    assert lines(ranks) == []


def test_summary_of_equal_ranks_names_no_difference(ranks: list[Rank]) -> None:
    for step in (1, 2):
        for rank in ranks:
            rank.run(step)
    found = summary(ranks)
    assert found["summary"] is True
    assert found["ranks"] == [0, 1, 2]
    assert (found["first_difference"], found["behind"], found["damaged"]) == (None, [], 0)
    assert found["compared"] == [{"group": "tp", "ranks": [0, 1, 2], "steps": 2}]


def test_summary_names_the_first_difference_with_its_sides(ranks: list[Rank]) -> None:
    for rank in ranks:
        rank.run(1)
    ranks[0].run(2)
    ranks[1].run(2, EAGER, "15x1", digest=7)
    ranks[2].run(3)
    difference = summary(ranks)["first_difference"]
    assert (difference["group"], difference["step"]) == ("tp", 2)
    assert difference["launches_differ"] is True
    assert [side["ranks"] for side in difference["sides"]] == [[0], [1], [2]]
    assert difference["sides"][1]["decided"] == {
        "role": "target",
        "batch": "15x1",
        "verdict": "eager (query_length)",
        "event": "check",
        "digest": "0000000000000007",
        "text": "decided to run target 15x1 eagerly (query_length)",
    }
    assert difference["sides"][1]["launched"]["event"] == "eager_begin"
    assert difference["sides"][2] == {"ranks": [2], "decided": None, "launched": None}


def test_summary_names_who_is_behind_and_where_each_stands(ranks: list[Rank]) -> None:
    for rank, steps in zip(ranks, (4, 1, 4), strict=True):
        for step in range(1, steps + 1):
            rank.run(step)
    ranks[1].check(2)
    ranks[1].begin()
    found = summary(ranks)
    assert found["behind"] == [{"rank": 1, "group": "tp", "step": 2, "behind": 2}]
    standing = found["standings"][1]
    assert standing["did_last"] == "began replay of target 16x2 and has not ended"
    assert (standing["rank"], standing["ended"]) == (1, False)
    assert [box["process"] for box in found["boxes"]] == ["running"] * 3


def test_summary_counts_damage_and_names_files_that_were_not_used(ranks: list[Rank]) -> None:
    directory = ranks[0].box.path.parent
    ranks[0].run(1)
    with ranks[0].box.path.open("r+b") as file:
        file.seek(4096 + 128 * 128 + 64 + 20)
        file.write(b"\xff")
    (directory / "blackbox.rank9.1.ring").write_bytes(b"x")
    (directory / "blackbox.rank8.1.ring").touch()
    found = summary(ranks)
    assert found["damaged"] == 1
    assert [box["damaged"] for box in found["boxes"]] == [1, 0, 0]
    assert [Path(file["path"]).name for file in found["unreadable"]] == ["blackbox.rank9.1.ring"]
    assert [Path(file["path"]).name for file in found["left_out"]] == ["blackbox.rank8.1.ring"]
