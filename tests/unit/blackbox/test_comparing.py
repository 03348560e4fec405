from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest

from graphguard.blackbox.comparing import FirstDifference
from graphguard.blackbox.events import Flag
from graphguard.blackbox.merge import Timeline, merge
from graphguard.blackbox.reading import read
from graphguard.verdict import Action, Reason, Verdict
from tests.unit.blackbox.rings import EAGER, EXACT, PADDED, Rank, open_ranks

Open = Callable[..., list[Rank]]
RECORDS = 4096 + 128 * 128


@pytest.fixture
def job(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Open:
    def opened(world_size: int, entries: int = 256) -> list[Rank]:
        return open_ranks(tmp_path, world_size, monkeypatch, entries=entries)

    return opened


def merged(ranks: list[Rank]) -> Timeline:
    return merge([read(rank.box.path) for rank in ranks])


def difference(ranks: list[Rank]) -> FirstDifference:
    found = merged(ranks).first_difference
    assert found is not None
    return found


def wipe(rank: Rank, step: int) -> None:
    """Damage the check of a step."""
    checks = [r for r in read(rank.box.path).records if r.event_name == "check" and r.step == step]
    with rank.box.path.open("r+b") as file:
        file.seek(RECORDS + (checks[0].number - 1) % 256 * 64 + 20)
        file.write(b"\xff")


def test_ranks_that_do_the_same_do_not_differ(job: Open) -> None:
    ranks = job(3)
    for step in range(1, 9):
        for rank in ranks:
            rank.run(step, EAGER if step == 5 else EXACT, "16x2")
    timeline = merged(ranks)
    assert timeline.first_difference is None
    (comparison,) = timeline.comparisons
    assert (comparison.group, comparison.members, comparison.steps) == ("tp", (0, 1, 2), 8)


def test_first_of_several_differences_is_named_with_its_sides(job: Open) -> None:
    ranks = job(3)
    for step in range(1, 6):
        for place, rank in enumerate(ranks):
            differs = (place == 1 and step >= 3) or (place == 2 and step == 5)
            rank.run(step, EAGER if differs else EXACT)
    found = difference(ranks)
    assert (found.group, found.step, found.launches_differ) == ("tp", 3, True)
    assert [side.members for side in found.sides] == [(0, 2), (1,)]
    decided = [side.check.verdict if side.check else None for side in found.sides]
    assert decided == ["replay (exact)", "eager (query_length)"]
    launched = [side.launch.event_name if side.launch else None for side in found.sides]
    assert launched == ["replay_begin", "eager_begin"]
    assert found.time_ns == merged(ranks).histories["tp"][0].checks[3].time_ns


@pytest.mark.parametrize(
    ("mine", "theirs"),
    [
        ({"role": "target"}, {"role": "drafter"}),
        ({"digest": 1}, {"digest": 2}),
        ({"verdict": EXACT}, {"verdict": EAGER}),
        ({"verdict": EAGER, "batch": "15x2"}, {"verdict": EAGER, "batch": "16x2"}),
        ({"verdict": EAGER, "batch": "4x1"}, {"verdict": EAGER, "batch": "4x1:prefill"}),
        (
            {"verdict": EAGER},
            {"verdict": Verdict(Action.RECAPTURE, Reason.QUERY_LENGTH)},
        ),
    ],
)
def test_different_launches_differ(
    job: Open, mine: dict[str, object], theirs: dict[str, object]
) -> None:
    ranks = job(2)
    ranks[0].run(1, **mine)  # type: ignore[arg-type]
    ranks[1].run(1, **theirs)  # type: ignore[arg-type]
    assert difference(ranks).step == 1


@pytest.mark.parametrize(
    ("mine", "theirs"),
    [
        ({"verdict": EXACT, "batch": "16x2"}, {"verdict": PADDED, "batch": "15x2"}),
        ({"verdict": PADDED, "batch": "14x2"}, {"verdict": PADDED, "batch": "15x2"}),
        (
            {"verdict": EAGER},
            {"verdict": Verdict(Action.EAGER, Reason.NO_GRAPH)},
        ),
    ],
)
def test_same_launch_for_another_reason_does_not_differ(
    job: Open, mine: dict[str, object], theirs: dict[str, object]
) -> None:
    ranks = job(2)
    ranks[0].run(1, **mine)  # type: ignore[arg-type]
    ranks[1].run(1, **theirs)  # type: ignore[arg-type]
    assert merged(ranks).first_difference is None


def test_rank_that_left_a_step_out_differs(job: Open) -> None:
    ranks = job(3)
    for step in range(1, 5):
        for place, rank in enumerate(ranks):
            if (place, step) != (1, 2):
                rank.run(step)
    found = difference(ranks)
    assert found.step == 2
    assert [(side.members, side.check is None) for side in found.sides] == [
        ((0, 2), False),
        ((1,), True),
    ]
    assert found.launches_differ is None


def test_rank_that_began_with_a_later_step_left_the_first_out(job: Open) -> None:
    ranks = job(2)
    for step in (1, 2, 3):
        ranks[0].run(step)
    for step in (2, 3):
        ranks[1].run(step)
    assert difference(ranks).step == 1


def test_rank_that_is_not_there_yet_does_not_differ(job: Open) -> None:
    ranks = job(2)
    for step in (1, 2, 3):
        ranks[0].run(step)
    ranks[1].run(1)
    assert merged(ranks).first_difference is None


def test_steps_that_have_been_overwritten_are_not_compared(job: Open) -> None:
    ranks = job(2, entries=64)
    for step in range(1, 101):
        ranks[0].run(step)
        # It writes more in each step, so it keeps fewer of them.
        ranks[1].check(step)
        ranks[1].check(step)
        ranks[1].begin()
        ranks[1].end()
    timeline = merged(ranks)
    assert timeline.first_difference is None
    (comparison,) = timeline.comparisons
    assert 10 < comparison.steps < 20


def test_step_whose_record_is_damaged_is_not_compared(job: Open) -> None:
    ranks = job(2)
    for step in range(1, 6):
        for rank in ranks:
            rank.run(step)
    wipe(ranks[1], 3)
    timeline = merged(ranks)
    assert timeline.damaged == 1
    assert timeline.first_difference is None


def test_damage_elsewhere_does_not_hide_a_step_that_was_left_out(job: Open) -> None:
    ranks = job(2)
    for step in range(1, 7):
        for place, rank in enumerate(ranks):
            if (place, step) != (1, 2):
                rank.run(step)
    wipe(ranks[1], 5)
    assert difference(ranks).step == 2


def test_adopted_launch_is_a_difference_that_was_not_launched(job: Open) -> None:
    ranks = job(2)
    ranks[0].run(1)
    ranks[1].check(1, EAGER, "15x1", digest=0)
    # The ledger made it take the graph of the other rank.
    ranks[1].check(1, PADDED, "15x1", flags=Flag.ADOPTED)
    ranks[1].begin()
    found = difference(ranks)
    assert (found.step, found.launches_differ) == (1, False)
    assert [side.check.verdict for side in found.sides if side.check] == [
        "replay (exact)",
        "eager (query_length)",
    ]


def test_step_that_was_refused_is_a_difference_that_not_all_have_launched(job: Open) -> None:
    ranks = job(2)
    ranks[0].run(1)
    ranks[1].check(1, EAGER)
    found = difference(ranks)
    assert found.launches_differ is None
    assert [side.launch is None for side in found.sides] == [False, True]


def test_launches_that_differ_after_equal_checks_are_a_difference(job: Open) -> None:
    ranks = job(2)
    ranks[0].run(1)
    ranks[1].check(1)
    ranks[1].eager = True
    ranks[1].begin()
    found = difference(ranks)
    assert (found.step, found.launches_differ) == (1, True)


def test_difference_of_another_group_is_first_if_it_came_first(job: Open) -> None:
    first, second = job(2)
    others = [Rank(rank.box, "pp") for rank in (first, second)]
    for step in range(1, 10):
        others[0].run(step)
        others[1].run(step, EAGER if step == 9 else EXACT)
    first.run(1)
    second.run(1, EAGER)
    assert (difference([first, second]).group, difference([first, second]).step) == ("pp", 9)


def test_one_rank_alone_is_compared_with_nobody(job: Open) -> None:
    ranks = job(1)
    ranks[0].run(1)
    timeline = merged(ranks)
    assert timeline.first_difference is None
    assert [comparison.steps for comparison in timeline.comparisons] == [0]


def test_records_without_a_step_are_not_compared(job: Open) -> None:
    ranks = job(2)
    ranks[0].run(0)
    ranks[1].run(0, EAGER)
    assert merged(ranks).first_difference is None
