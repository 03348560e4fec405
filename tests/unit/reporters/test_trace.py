"""The trace follows the rules of Google's "Trace Event Format"."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from msgspec.json import decode

from graphguard.blackbox.events import DivergenceKind, Event
from graphguard.blackbox.reading import read
from graphguard.reporters import trace
from tests.unit.blackbox.rings import EAGER, PADDED, Rank, open_ranks


@pytest.fixture
def ranks(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> list[Rank]:
    return open_ranks(tmp_path, 2, monkeypatch)


def document(ranks: list[Rank]) -> dict[str, Any]:
    rendered: dict[str, Any] = decode(trace.render([read(rank.box.path) for rank in ranks]))
    return rendered


def events(ranks: list[Rank], *kinds: str) -> list[dict[str, Any]]:
    return [event for event in document(ranks)["traceEvents"] if event["ph"] in kinds]


def busy(ranks: list[Rank]) -> None:
    for step in range(1, 4):
        for rank in ranks:
            rank.run(step, PADDED, "15x2")
    ranks[0].run(4)
    ranks[1].run(4, EAGER, "15x1")
    ranks[0].diverge(4, DivergenceKind.DIFFERS, peer=1)
    ranks[1].check(5)
    ranks[1].begin()
    ranks[0].check(5)
    ranks[0].box.note("hello")
    ranks[0].box.record(Event.CAPTURE, role="target", group="tp")
    ranks[0].box.record(Event.VOTE, role="target", group="tp", step=5)
    ranks[0].box.close()


def test_every_event_has_what_its_kind_needs(ranks: list[Rank]) -> None:
    busy(ranks)
    shown = document(ranks)
    assert shown["displayTimeUnit"] in {"ms", "ns"}
    assert all(isinstance(value, str) for value in shown["otherData"].values())
    for event in shown["traceEvents"]:
        assert event["ph"] in {"M", "X", "i"}
        assert event["name"]
        assert isinstance(event["args"], dict)
        # Perfetto takes process 0 and thread 0 for the idle task; metadata of a process has none.
        assert event["pid"] > 0
        assert event["tid"] > 0 or event["name"].startswith("process_")
        assert event["ts"] >= 0
        if event["ph"] == "X":
            assert event["dur"] >= 0
        if event["ph"] == "i":
            assert event["s"] in {"g", "p", "t"}
        if event["ph"] == "M":
            assert event["name"] in {
                "process_name",
                "process_sort_index",
                "thread_name",
                "thread_sort_index",
            }


def test_times_are_microseconds_from_the_first_record(ranks: list[Rank]) -> None:
    ranks[0].run(1)
    ranks[1].run(1)
    check, begin, end = read(ranks[1].box.path).records
    start = read(ranks[0].box.path).records[0].time_ns
    assert check.time_ns > start
    launches = events(ranks, "X")
    assert launches[1]["ts"] == pytest.approx((begin.time_ns - start) / 1_000, abs=1e-6)
    assert launches[1]["dur"] == pytest.approx((end.time_ns - begin.time_ns) / 1_000, abs=1e-6)
    assert document(ranks)["otherData"]["begins_ns_since_epoch"] == str(start)


def test_ranks_are_processes_and_groups_are_threads(ranks: list[Rank]) -> None:
    busy(ranks)
    Rank(ranks[0].box, "pp").run(1)
    names = {
        (event["name"], event["pid"], event["tid"]): event["args"]["name"]
        for event in events(ranks, "M")
        if event["name"] in {"process_name", "thread_name"}
    }
    box = read(ranks[0].box.path)
    assert names["process_name", 1, 0] == f"rank 0 (pid {box.pid} on {box.host}, closed)"
    assert names["thread_name", 1, 1] == "no group"
    assert names["thread_name", 1, 2] == "group pp"
    assert names["thread_name", 1, 3] == names["thread_name", 2, 3] == "group tp"
    assert ("thread_name", 2, 2) not in names
    assert {(e["pid"], e["tid"]) for e in events(ranks, "X")} == {(1, 2), (1, 3), (2, 3)}


def test_launch_says_what_was_launched(ranks: list[Rank]) -> None:
    ranks[0].run(7, EAGER, "15x1", digest=0xABC)
    (launch,) = events(ranks, "X")
    assert (launch["name"], launch["cat"]) == ("eager target 15x1", "eager")
    assert launch["args"] == {
        "step": 7,
        "role": "target",
        "batch": "15x1",
        "action": "eager",
        "reason": "query_length",
        "digest": "0000000000000abc",
        "record": launch["args"]["record"],
    }


def test_launch_that_has_not_ended_lasts_to_the_end_and_says_so(ranks: list[Rank]) -> None:
    ranks[0].check(1)
    ranks[0].begin()
    ranks[1].run(1)
    unfinished, ended = events(ranks, "X")
    assert unfinished["name"] == "replay target 16x2 (has not ended)"
    assert unfinished["args"]["unfinished"] is True
    assert unfinished["ts"] + unfinished["dur"] == pytest.approx(ended["ts"] + ended["dur"])
    assert "unfinished" not in ended["args"]


def test_end_whose_begin_was_overwritten_is_no_launch(ranks: list[Rank]) -> None:
    ranks[0].check(1)
    ranks[0].end()
    ranks[0].run(2)
    assert [launch["args"]["step"] for launch in events(ranks, "X")] == [2]


def test_divergences_are_marks_across_all_tracks(ranks: list[Rank]) -> None:
    busy(ranks)
    marks = {mark["cat"]: mark for mark in events(ranks, "i")}
    assert marks["differs"]["s"] == "g"
    assert marks["differs"]["args"]["peer"] == 1
    assert marks["differs"]["name"] == "saw that rank 1 does something else"
    assert {marks[name]["s"] for name in ("note", "vote", "closed")} == {"p"}
    assert marks["note"]["name"] == "noted: hello"


def test_check_is_a_mark_only_where_nothing_was_launched(ranks: list[Rank]) -> None:
    ranks[0].run(1)
    ranks[0].check(2)
    ranks[0].check(3)
    ranks[0].begin()
    ranks[1].run(1)
    ranks[1].check(2, EAGER)
    marks = [mark["args"]["step"] for mark in events(ranks, "i")]
    assert marks == [2, 2]


def test_nothing_recorded_is_an_empty_trace(ranks: list[Rank]) -> None:
    assert events(ranks, "X", "i") == []
    assert decode(trace.render([]))["traceEvents"] == []
