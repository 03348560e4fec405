"""The ranks of a job as lines: exact, as wide and as high as the terminal."""

from __future__ import annotations

import io
import json
import sys

import pytest

from graphguard.reporters import watch, watch_json
from graphguard.reporters.live import Screen
from graphguard.watch.breadcrumbs import CrumbState
from graphguard.watch.looking.bundles import ToldVerdict
from graphguard.watch.looking.view import View
from tests.unit.watch.rank_views import NOW, SECOND, activity, bundle, last, pulse, rank

STUCK = View(
    NOW,
    (
        rank(0, pulse=pulse(activity(seconds=6.3), stalls=1), last={"0[0-3]": last(seconds=6.3)}),
        rank(1, pulse=pulse(), last={"0[0-3]": last(40, in_flight=False, seconds=6.4)}),
        rank(2, state="stopped", pulse=pulse(activity(seconds=6.2), beat_ns=3 * SECOND)),
        rank(3, state="gone", note="step failed: OutOfMemoryError", divergences=1),
    ),
    (bundle(),),
    "run",
)

WIDE = """\
19:14:12 UTC  4 of 4 ranks: 1 died, 1 stopped, 1 stalled, 1 idle  (run)
rank   pid  host    state    group   step  doing                          age  watchdog   \
verdicts                         stalls
   0  1000  host-a  stalled  0[0-3]    41  replay of target 16x2        6.3 s  ok         \
812 replay, 7 pad                     1
   1  1001  host-a  idle     0[0-3]    40  ended replay of target 16x2  6.4 s  ok         \
812 replay, 7 pad
   2  1002  host-a  stopped  0[0-3]    41  replay of target 16x2        6.2 s  3.0 s ago  \
812 replay, 7 pad
   3  1003  host-a  died     0[0-3]    41  ended replay of target 16x2  1.0 s             \
812 replay, 7 pad, 1 divergence

stalls
  going on: host-stuck: rank 1 has not launched step 41 of 0[0-3]
    /run/stall-20261121T191410Z-host-a-0123abcd

under way for long
  rank 0: replay of target 16x2 for 6.3 s, longer than 5.0 s
  rank 2: replay of target 16x2 for 6.2 s, longer than 5.0 s

errors that ranks noted
  rank 3: step failed: OutOfMemoryError
"""

NARROW = """\
19:14:12 UTC  4 of 4 ranks: 1 died, 1 s…
rank  state    step  doing           age
   0  stalled    41  replay of t…  6.3 s
   1  idle       40  ended repla…  6.4 s
   2  stopped    41  replay of t…  6.2 s
   3  died       41  ended repla…  1.0 s

stalls
  going on: host-stuck: rank 1 has not
    launched step 41 of 0[0-3]
    /run/stall-20261121T191410Z-host-a-0
      123abcd

under way for long
  rank 0: replay of target 16x2 for 6.3
    s, longer than 5.0 s
  rank 2: replay of target 16x2 for 6.2
    s, longer than 5.0 s

errors that ranks noted
  rank 3: step failed: OutOfMemoryError
"""


def test_ranks_and_what_is_wrong_with_them() -> None:
    assert watch.render(STUCK, 160) == WIDE


def test_a_narrow_terminal_is_kept_to() -> None:
    assert watch.render(STUCK, 40) == NARROW


@pytest.mark.parametrize("width", [1, 20, 33, 47, 60, 79, 100, 133, 300])
@pytest.mark.parametrize("height", [None, 1, 5, 10, 24, 50])
def test_nothing_is_wider_or_higher_than_the_terminal(width: int, height: int | None) -> None:
    many = View(NOW, STUCK.ranks + tuple(rank(n) for n in range(4, 64)), STUCK.bundles, "run")
    for view in (STUCK, many, View(NOW, (), (), "run")):
        every = watch.lines(view, width, height)
        assert all(len(line.text) <= max(width, watch.LEAST_WIDTH) for line in every)
        assert height is None or len(every) <= height


def test_of_many_ranks_those_in_trouble_are_shown_and_the_stalls_too() -> None:
    fine = [rank(number, pulse=pulse(activity())) for number in range(64)]
    fine[40] = rank(40, state="stopped")
    text = [line.text for line in watch.lines(View(NOW, tuple(fine), (bundle(),)), 100, 20)]

    assert any(line.startswith("  40") and "stopped" in line for line in text)
    assert any(line.startswith("and ranks ") and line.endswith(": busy") for line in text)
    assert "stalls" in text
    assert len(text) <= 20


def test_all_ranks_are_shown_where_there_is_room() -> None:
    ranks = tuple(rank(number) for number in range(64))

    assert len(watch.lines(View(NOW, ranks), 100)) == 1 + 1 + 64


def test_what_is_slow_says_why_and_for_how_long_it_may() -> None:
    compiling = pulse(
        activity("step", 7, name="execute_model", batch=""),
        extended_ns=53 * SECOND,
        extended_why="compiling",
    )
    text = watch.render(View(NOW, (rank(0, pulse=compiling),)), 160)

    assert "slow" in text
    assert "  rank 0: step execute_model for 7.0 s: compiling, 53.0 s left\n" in text


def test_a_replay_with_breadcrumbs_says_which_call_it_is_in() -> None:
    crumb = CrumbState("target/full 16x2", 0xABCD, 9, 8, 3, 12, "all_reduce of 8 float16 over tp")
    other = CrumbState("drafter/full 16x1", 0x12, 9, 8, 0, 2, "broadcast")
    state = rank(0, pulse=pulse(activity(seconds=6)), crumbs=(other, crumb))
    view = View(NOW, (state,))

    told = "6.0 s, in call 4 of 12 (all_reduce of 8 float16 over tp), longer than 5.0 s"
    assert f"  rank 0: replay of target 16x2 for {told}\n" in watch.render(view, 160)
    crumbs = json.loads(watch_json.render(view))["ranks"][0]["breadcrumbs"]
    assert [each["digest"] for each in crumbs] == [f"{0x12:016x}", f"{0xABCD:016x}"]


def test_a_rank_that_is_gone_says_what_it_was_in() -> None:
    begun = {"0[0-3]": last(seconds=2)}
    for fields, text in (
        ({"state": "gone"}, "began replay of target 16x2 and has not ended"),
        ({"pulse": None}, "began replay of target 16x2 and has not ended"),
        # The pulse is read after the records, and says that it has.
        ({}, "began replay of target 16x2  2.0 s"),
    ):
        assert text in watch.render(View(NOW, (rank(0, last=begun, **fields),)), 160)


def test_counts_that_miss_the_first_records_are_at_least_so_many() -> None:
    text = watch.render(View(NOW, (rank(0, counted_from=900),)), 160)

    assert "≥ 812 replay, 7 pad" in text


def test_stalls_that_are_over_or_cannot_be_read_say_so() -> None:
    over = bundle(over="recovered", over_seconds=8.25)
    unread = bundle(
        verdict=None, problem="there is no verdict yet", path="/run/stall-b", nodes="a sees none"
    )
    old = bundle(examined=False, verdict=ToldVerdict(ranks=(1, 2), graph="replay of target"))
    text = watch.render(View(NOW, (rank(0),), (unread, over, old)), 160)

    assert "  going on: there is no verdict yet\n    nodes: a sees none\n    /run/stall-b\n" in text
    assert "  recovered after 8.2 s: host-stuck: rank 1 has not launched" in text
    assert "  ended: no class: ranks 1-2 replay of target\n" in text


def test_names_from_files_do_not_move_the_cursor() -> None:
    hostile = "\x1b[2J\r\n\u202e"
    view = View(
        NOW,
        (
            rank(
                0,
                host=hostile,
                note=hostile,
                last={hostile: last()},
                pulse=pulse(activity(name=hostile, group=hostile), extended_why=hostile),
                verdicts={hostile: 1},
            ),
        ),
        (bundle(path=f"/run/{hostile}", verdict=ToldVerdict(hostile, sentence=hostile)),),
        hostile,
    )

    text = watch.render(view, 300)
    assert "\x1b" not in text
    assert "\r" not in text
    assert "\u202e" not in text
    assert "\\x1b[2J" in text
    assert watch_json.render(view).count("\n") == 1
    assert "\u202e" not in watch_json.render(view)


def test_json_is_one_object_a_line() -> None:
    (line,) = watch_json.render(STUCK).splitlines()
    found = json.loads(line)

    assert (found["schema"], found["version"]) == ("graphguard.watch", 1)
    assert (found["trouble"], found["ended"], found["where"]) == (True, False, "run")
    assert [each["state"] for each in found["ranks"]] == ["stalled", "idle", "stopped", "died"]
    first = found["ranks"][0]
    assert set(first) == {
        "rank",
        "world_size",
        "pid",
        "host",
        "ring",
        "state",
        "process",
        "group",
        "step",
        "doing",
        "age_ns",
        "pulse",
        "last",
        "verdicts",
        "divergences",
        "counted_from",
        "missed",
        "note",
        "breadcrumbs",
        "closed",
    }
    (under_way,) = first["pulse"]["activities"]
    assert under_way["stalled"]
    assert under_way["limit_ns"] == 5 * SECOND
    assert under_way["digest"] == "000000000000abcd"
    assert first["last"]["0[0-3]"]["in_flight"]
    assert found["ranks"][3]["note"] == "step failed: OutOfMemoryError"
    (stall,) = found["stalls"]
    assert stall["open"]
    assert stall["verdict"]["stall_class"] == "host-stuck"
    assert stall["verdict"]["ranks"] == [1]


def test_without_rich_and_without_a_terminal_views_are_printed(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setitem(sys.modules, "rich.console", None)
    monkeypatch.setenv("COLUMNS", "160")
    out = io.StringIO()
    with Screen(out) as screen:
        assert not screen.took_over
        for _ in range(2):
            screen.draw(lambda width, height: watch.lines(STUCK, width, height))

    assert out.getvalue() == f"{WIDE}\n{WIDE}"
