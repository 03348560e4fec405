from __future__ import annotations

from graphguard.signature import CollectiveCall
from tests.unit.audit.jobs import call, calls_of


def uneven(rank: int, sent: tuple[int, ...], received: tuple[int, ...]) -> CollectiveCall:
    return call(
        "all_to_all_v",
        None,
        group="0[0-1]",
        size=2,
        rank=rank,
        send_splits=sent,
        recv_splits=received,
    )


def test_splits_that_fit_give_no_finding() -> None:
    assert calls_of([uneven(0, (1, 2), (1, 3))], [uneven(1, (3, 4), (2, 4))]) == []


def test_splits_that_do_not_fit_are_found() -> None:
    (finding,) = calls_of([uneven(0, (1, 2), (1, 3))], [uneven(1, (3, 4), (5, 4))])
    assert (finding.rule, finding.ranks, finding.position) == ("all-to-all-splits", (0, 1), 0)
    assert "rank 0 sends 2 elements to rank 1, which expects 5" in finding.what


def test_calls_are_paired_in_order() -> None:
    first = (uneven(0, (1, 2), (1, 3)), uneven(1, (3, 4), (2, 4)))
    second = (uneven(0, (7, 8), (7, 9)), uneven(1, (9, 6), (8, 6)))
    assert calls_of([first[0], second[0]], [first[1], second[1]]) == []
    (finding,) = calls_of([first[0], second[0]], [second[1], first[1]])
    assert finding.rule == "all-to-all-splits"


def test_splits_of_too_few_ranks_are_no_crash() -> None:
    assert calls_of([uneven(0, (1,), ())], [uneven(1, (), (2,))]) == []
