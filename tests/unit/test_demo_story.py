"""The demo says that it came out as claimed only if it did."""

import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import msgspec
import pytest

from graphguard.audit import Finding
from graphguard.audit.catalogue import finding
from graphguard.blackbox.choosing import Chosen, load
from graphguard.blackbox.events import DivergenceKind
from graphguard.demo import seen
from graphguard.demo.processes import RankReport, RunReport
from graphguard.demo.story import (
    Adoption,
    Audit,
    Diverging,
    Guarded,
    Killed,
    RankEnd,
    Refusal,
    StepResult,
    Story,
    Unguarded,
)
from graphguard.reporters import demo
from tests.unit.blackbox.rings import EAGER, Rank, open_ranks

PLANTED: Finding = finding("collective-count", (1,), "rank 1 has another count")
EXACT = StepResult("16x2", "target", ["replay (exact)"] * 2, 0.0)
MOVED = StepResult("16x2", "target", ["eager (adopted)", "eager (input_address)"], 0.0)
GUARDED = Guarded("completed", 3.0, [EXACT], True, Adoption(1, MOVED), 2)
REFUSAL = Refusal(1, 6, "rank 0: replay of drafter/full; rank 1: replay of target/full", 0.001)
DIVERGING = Diverging(
    "ended",
    5.0,
    REFUSAL,
    ["drafter", "target"],
    [0],
    [RankEnd(0, 70, 1.1), RankEnd(1, 1, 1.3)],
)

replace = msgspec.structs.replace
Write = Callable[[list[Rank]], None]


def gone(ranks: list[Rank]) -> None:
    """Leave what ranks leave of which rank 1 was killed in the middle of a replay."""
    in_the_middle(ranks)
    found_gone(ranks)


def in_the_middle(ranks: list[Rank]) -> None:
    first = ranks[0]
    for rank in ranks:
        rank.run(1)
        rank.check(2)
        rank.begin()
    first.end()
    first.check(3, role="drafter")
    first.begin()


def found_gone(ranks: list[Rank]) -> None:
    ranks[0].diverge(2, DivergenceKind.PEER_GONE, peer=1)


def not_in_a_replay(ranks: list[Rank]) -> None:
    gone(ranks)
    ranks[1].end()


def not_behind(ranks: list[Rank]) -> None:
    gone(ranks)
    ranks[1].end()
    ranks[1].check(3, role="drafter")
    ranks[1].begin()


def in_an_eager_run(ranks: list[Rank]) -> None:
    first = ranks[0]
    for rank in ranks:
        rank.check(2, EAGER)
        rank.begin()
    first.end()
    first.check(3)
    first.begin()
    found_gone(ranks)


def different_before(ranks: list[Rank]) -> None:
    ranks[0].run(1, digest=1)
    ranks[1].run(1, digest=2)
    gone(ranks)


def nothing(ranks: list[Rank]) -> None:
    pass


@pytest.fixture
def left(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Callable[[Write], Chosen]:
    def written(write: Write) -> Chosen:
        write(open_ranks(tmp_path, 2, monkeypatch))
        return load([tmp_path])

    return written


@pytest.fixture
def story(left: Callable[[Write], Chosen]) -> Story:
    killed = Killed("ended", 5.0, 1, [RankEnd(0, 70, 1.5), RankEnd(1, -9, 0.0)], left(gone))
    return Story(
        ranks=2,
        unguarded=Unguarded("hang", 8.0, 5.0, [], 2),
        guarded=GUARDED,
        audit=Audit([], [PLANTED]),
        diverging=DIVERGING,
        killed=killed,
        manifests=[],
        black_boxes=[],
    )


def test_what_is_to_be_seen_is_as_claimed(story: Story) -> None:
    assert story.as_claimed


@pytest.mark.parametrize(
    "otherwise",
    [
        {"unguarded": Unguarded("completed", 3.0, 0.0, [], 0)},
        {"unguarded": Unguarded("aborted", 3.0, 0.0, [], 0)},
        {"audit": Audit([PLANTED], [PLANTED])},
        {"audit": Audit([], [])},
    ],
)
def test_another_end_or_another_audit_is_not(story: Story, otherwise: dict[str, Any]) -> None:
    assert not replace(story, **otherwise).as_claimed


@pytest.mark.parametrize(
    "otherwise",
    [
        {"outcome": "hang"},
        {"equal_to_eager": False},
        {"agreed_launches": 1},
        {"adoption": None},
        {"adoption": Adoption(1, replace(MOVED, difference=1e-3))},
        {"adoption": Adoption(1, replace(MOVED, verdicts=["eager (input_address)"] * 2))},
        {"adoption": Adoption(1, replace(MOVED, verdicts=["replay (exact)"] * 2))},
        {"adoption": Adoption(1, replace(MOVED, verdicts=MOVED.verdicts[:1]))},
        {"adoption": Adoption(0, MOVED)},
    ],
)
def test_ranks_that_do_not_agree_are_not(story: Story, otherwise: dict[str, Any]) -> None:
    assert not replace(story, guarded=replace(GUARDED, **otherwise)).as_claimed


@pytest.mark.parametrize(
    "otherwise",
    [
        {"outcome": "hang"},
        {"outcome": "completed"},
        {"refusal": None},
        {"refusal": replace(REFUSAL, rank=0)},
        {"refusal": replace(REFUSAL, message="rank 0: replay of drafter/full")},
        {"sides": ["drafter"]},
        {"sides": []},
        {"launched": []},
        {"launched": [0, 1]},
        {"ends": [RankEnd(0, 1, 1.1), RankEnd(1, 1, 1.3)]},
        {"ends": [RankEnd(0, None, None), RankEnd(1, 1, 1.3)]},
        {"ends": [RankEnd(0, 70, 1.1), RankEnd(1, 70, 1.3)]},
        {"ends": [RankEnd(1, 1, 1.3)], "launched": []},
    ],
)
def test_a_divergence_that_ends_otherwise_is_not(story: Story, otherwise: dict[str, Any]) -> None:
    assert not replace(story, diverging=replace(DIVERGING, **otherwise)).as_claimed


@pytest.mark.parametrize(
    "otherwise",
    [
        {"outcome": "hang"},
        {"ends": [RankEnd(0, 1, 0.1), RankEnd(1, -9, 0.0)]},
        {"ends": [RankEnd(0, 70, 1.5), RankEnd(1, 1, 0.0)]},
        {"ends": [RankEnd(i, -9 if i == 1 else 70, 1.0) for i in range(3)]},
        {"rank": 0},
        {"black_boxes": Chosen(())},
    ],
)
def test_a_killed_rank_that_ends_otherwise_is_not(story: Story, otherwise: dict[str, Any]) -> None:
    assert not replace(story, killed=replace(story.killed, **otherwise)).as_claimed


@pytest.mark.parametrize(
    "write",
    [in_the_middle, not_in_a_replay, not_behind, in_an_eager_run, different_before, nothing],
)
def test_black_boxes_that_show_something_else_are_not(
    left: Callable[[Write], Chosen], write: Write
) -> None:
    ends = [RankEnd(0, 70, 1.5), RankEnd(1, -9, 0.0)]

    assert not Killed("ended", 5.0, 1, ends, left(write)).as_claimed


def test_a_black_box_that_is_missing_or_damaged_is_not(story: Story) -> None:
    first, killed = story.killed.black_boxes.boxes

    for boxes in ((first,), (killed,), (first, replace(killed, damaged=1))):
        assert not replace(story.killed, black_boxes=Chosen(boxes)).as_claimed


def test_black_boxes_of_an_earlier_demo_are_not_taken_for_those_of_this_one(
    left: Callable[[Write], Chosen],
) -> None:
    boxes = left(gone)

    def of(pid: int) -> Chosen:
        report = RunReport("ended", 1.0, 0.0, [RankReport(0, pid, 0, None, [])])
        return seen.boxes_of(report, boxes)

    assert of(os.getpid()) == boxes
    assert of(os.getpid() + 1).boxes == ()


def test_a_launch_in_which_ranks_differ_is_not_counted_as_agreed(
    left: Callable[[Write], Chosen],
) -> None:
    def differ_in_the_third(ranks: list[Rank]) -> None:
        for digest, rank in enumerate(ranks):
            rank.run(1)
            rank.run(2)
            rank.run(3, digest=digest)

    report = RunReport("completed", 1.0, 0.0, [RankReport(r, 1, 0, None, []) for r in range(2)])
    assert seen.guarded(report, left(differ_in_the_third)).agreed_launches == 2


def test_the_text_says_what_was_not_seen(story: Story) -> None:
    told = demo.render(
        replace(
            story,
            guarded=replace(GUARDED, equal_to_eager=False),
            diverging=replace(DIVERGING, launched=[0, 1]),
            killed=replace(story.killed, black_boxes=Chosen(()), ends=[RankEnd(0, None, None)]),
            troubles=["killed: no black box"],
        )
    )

    assert "equal to an all-eager run: NO" in told
    assert "refused AFTER it had launched" in told
    assert "rank 0 did not end" in told
    assert "trouble: killed: no black box" in told
    assert "NOBODY was refused" in demo.render(
        replace(story, diverging=replace(DIVERGING, refusal=None))
    )
