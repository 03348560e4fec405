"""The native ledger, one call after another. Races are for tests/native/test_ledger_stress.py."""

from __future__ import annotations

import pytest

from graphguard import _core
from graphguard.agreement.launches import LaunchKind, NoticeKind, Outcome, Seen, Trouble
from tests.unit.agreement.ledgers import BATCH, places

OTHER_BATCH = (3, 2, 6, 0)
SLOTS = _core.LEDGER_SLOTS


def test_ranks_that_launch_the_same_see_nothing() -> None:
    with places(3, enforces=False) as ranks:
        for _ in range(5):
            assert [rank.propose(rank.graphs[0]) for rank in ranks] == [0, 0, 0]
            assert [rank.propose(rank.eager) for rank in ranks] == [0, 0, 0]


def test_observing_the_rank_that_comes_later_sees_the_difference_before_it_launches() -> None:
    with places(2, enforces=False) as (first, second):
        assert first.propose(first.graphs[0]) == 0
        assert second.propose(second.eager) == Seen.DIFFERS

        seen, rank, launch = second.native.last()
        assert (seen, rank) == (Seen.DIFFERS, 0)
        assert launch[0] == LaunchKind.REPLAY


def test_what_one_rank_observed_is_told_to_the_others_once() -> None:
    with places(2, enforces=False) as (first, second):
        first.propose(first.graphs[0])
        second.propose(second.graphs[1])
        second.native.settle(Outcome.LAUNCHED, Trouble.DIFFERS, False)

        assert first.native.trouble() == (Trouble.DIFFERS, 1, 1)
        assert first.propose(first.graphs[0]) == _core.TROUBLE_TOLD
        first.native.acknowledge_trouble()
        assert first.propose(first.graphs[0]) == 0


def test_two_graphs_of_one_digest_are_the_same_whatever_is_padded_into_them() -> None:
    with places(2, enforces=False) as (first, second):
        assert first.propose(first.graphs[0], BATCH) == 0
        assert second.propose(second.graphs[0], OTHER_BATCH) == 0


def test_eager_runs_of_different_batches_differ() -> None:
    with places(2, enforces=False) as (first, second):
        first.propose(first.eager, BATCH)
        assert second.propose(second.eager, OTHER_BATCH) == Seen.DIFFERS


@pytest.mark.parametrize("half", ["digest_high", "digest_low", "key"])
def test_digests_that_agree_in_all_but_one_word_differ(half: str) -> None:
    words = {"digest_high": 1, "digest_low": 1, "key": 7}
    with places(2, enforces=False) as (first, second):
        other = {**words, half: words[half] ^ 1 << 63}
        mine = first.native.add_launch(kind=0, **words, ring=None, role=0, group=0)
        theirs = second.native.add_launch(kind=0, **other, ring=None, role=0, group=0)
        assert first.propose(mine) == 0
        assert second.propose(theirs) == Seen.DIFFERS


def test_steps_are_compared_with_the_same_step_however_far_ranks_run_ahead() -> None:
    with places(2, enforces=False) as (ahead, behind):
        for number in range(100):
            assert ahead.propose(ahead.graphs[number % 2]) == 0
        assert [behind.propose(behind.graphs[number % 2]) for number in range(100)] == [0] * 100
        assert ahead.propose(ahead.graphs[0]) == 0
        assert behind.propose(behind.graphs[1]) == Seen.DIFFERS


def test_enforcing_the_first_rank_decides_and_says_so_to_the_others() -> None:
    with places(3, enforces=True) as ranks:
        assert ranks[1].propose(ranks[1].eager) == 0
        assert ranks[0].propose(ranks[0].graphs[0]) == Seen.DIFFERS
        assert ranks[0].native.last()[1] == 1
        assert ranks[0].native.last()[2][0] == LaunchKind.EAGER
        assert ranks[2].propose(ranks[2].eager) == 0


def test_after_a_refusal_nothing_more_is_published() -> None:
    with places(2, enforces=True) as (first, second):
        first.propose(first.graphs[0])
        second.propose(second.eager)
        second.native.settle(Outcome.REFUSED, Trouble.REFUSED, False)

        assert second.native.outcome(1, 1) == Outcome.REFUSED
        assert first.propose(first.graphs[0]) == _core.TROUBLE_TOLD
        assert first.native.passed(0) == 1


def test_observing_a_rank_that_is_a_whole_round_ahead_cannot_be_compared_with() -> None:
    with places(2, enforces=False) as (ahead, behind):
        for _ in range(SLOTS + 1):
            ahead.propose(ahead.graphs[0])
        assert behind.propose(behind.graphs[0]) == Seen.LAPPED


def test_enforcing_no_rank_runs_so_far_ahead_that_another_could_not_follow() -> None:
    with places(2, enforces=True) as (ahead, behind):
        for _ in range(SLOTS - 2):
            assert ahead.propose(ahead.graphs[0]) == 0
        assert ahead.propose(ahead.graphs[0]) == Seen.AHEAD
        assert behind.propose(behind.eager) == Seen.DIFFERS
        assert ahead.propose(ahead.graphs[0]) == 0


def test_a_vote_with_all_ranks_there_runs_eagerly_if_one_wants_to() -> None:
    with places(2, enforces=True) as (first, second):
        # One thread cannot wait and come: the first rank publishes without waiting.
        assert first.propose(first.graphs[0]) == 0
        assert second.native.vote(second.eager, 0, *BATCH, 5.0) == Seen.DIFFERS


def test_a_vote_ends_for_all_alike_when_a_rank_does_not_come_in_time() -> None:
    with places(2, enforces=True) as (first, second):
        assert first.native.vote(first.graphs[0], 0, *BATCH, 0.01) == Seen.TIMED_OUT
        assert second.native.vote(second.graphs[0], 0, *BATCH, 5.0) == Seen.TIMED_OUT


def test_a_notice_holds_from_a_step_that_nobody_has_passed() -> None:
    with places(2, enforces=True) as (first, second):
        for _ in range(10):
            first.propose(first.graphs[0])
        step = second.native.announce(NoticeKind.QUARANTINE, 1, 2, 7, 5)
        assert step == 15

        answers = [first.propose(first.graphs[0]) for _ in range(4)]
        assert answers == [0, 0, 0, _core.NOTICES_DUE]
        assert first.native.take_due() == [(NoticeKind.QUARANTINE, 1, 15, 1, 2, 7)]
        assert first.propose(first.graphs[0]) == 0

        answers = [second.propose(second.graphs[0]) for _ in range(14)]
        assert answers == [0] * 13 + [_core.NOTICES_DUE]
        assert [notice[2] for notice in second.native.take_due()] == [15]


def test_notices_come_to_an_end() -> None:
    with places(1, enforces=True) as (rank,):
        announced = [rank.native.announce(NoticeKind.QUARANTINE, 1, 2, 7, 5) for _ in range(300)]
        assert announced.count(None) == 300 - 256


def test_the_window_tells_ranks_apart_that_did_something_else_once() -> None:
    with places(2, enforces=False) as (first, second):
        for number in range(20):
            first.propose(first.graphs[0])
            second.propose(second.graphs[1 if number == 10 else 0])
            if number == 10:
                second.native.settle(Outcome.LAUNCHED, Trouble.NONE, False)
        mine, theirs = first.native.window(20), second.native.window(20)
        assert [step for step, _, _ in mine] == list(range(1, 21))
        assert [a[2] == b[2] for a, b in zip(mine, theirs, strict=True)] == [True] * 10 + [
            False
        ] * 10
        assert [a[1] == b[1] for a, b in zip(mine, theirs, strict=True)].count(False) == 1


def test_a_disowned_ledger_publishes_nothing() -> None:
    with places(1, enforces=True) as (rank,):
        rank.native.disown()
        assert rank.propose(rank.graphs[0]) == _core.DISOWNED
        assert rank.native.passed(0) == 0


def test_a_stopped_ledger_publishes_nothing() -> None:
    with places(1, enforces=False) as (rank,):
        rank.native.stop()
        assert rank.propose(rank.graphs[0]) == _core.STOPPED
        assert rank.native.passed(0) == 0
