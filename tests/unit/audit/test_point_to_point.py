from __future__ import annotations

from graphguard.audit import audit
from graphguard.signature import CollectiveCall
from tests.unit.audit.jobs import call, calls_of, graph, job, loaded, rules


def send(peer: int, count: int = 8, **other: str) -> CollectiveCall:
    return call("send", count, peer=peer, **other)  # type: ignore[arg-type]


def recv(peer: int, count: int = 8, **other: str) -> CollectiveCall:
    return call("recv", count, peer=peer, **other)  # type: ignore[arg-type]


def test_sends_and_receives_that_pair_give_no_finding() -> None:
    assert calls_of([send(1), recv(1, 4)], [recv(0), send(0, 4)]) == []


def test_sends_pair_in_order_for_each_peer() -> None:
    assert (
        calls_of([send(1, 1), send(2, 2), send(1, 3)], [recv(0, 1), recv(0, 3)], [recv(0, 2)]) == []
    )


def test_send_without_receive_is_found() -> None:
    (finding,) = calls_of([call(), send(1), send(1)], [recv(0), call()])
    assert (finding.rule, finding.ranks, finding.position) == ("unpaired-send", (0, 1), 2)
    assert finding.sides[1].text == "nothing"


def test_receive_without_send_is_found() -> None:
    (finding,) = calls_of([call()], [call(), recv(0)])
    assert (finding.rule, finding.ranks, finding.position) == ("unpaired-recv", (0, 1), 1)


def test_other_count_or_dtype_of_the_two_ends_is_found() -> None:
    (counts,) = calls_of([send(1), send(1, 9)], [recv(0), recv(0, 10)])
    assert (counts.rule, counts.position) == ("point-to-point-count", 1)
    assert "9 sent and 10 expected" in counts.what
    (dtypes,) = calls_of([send(1)], [recv(0, dtype="float32")])
    assert dtypes.rule == "point-to-point-dtype"


def test_peer_counts_within_its_communicator() -> None:
    group = "1[0,3]"
    ranks: list[list[CollectiveCall]] = [[send(1, group=group)], [], [], [recv(0, group=group)]]
    assert calls_of(*ranks) == []
    assert rules(calls_of([send(3)], [], [], [recv(0, group=group)])) == [
        "unpaired-send",
        "unpaired-recv",
    ]


def test_peer_that_its_communicator_lacks_is_found() -> None:
    (finding,) = calls_of([send(4)], [])
    assert (finding.rule, finding.ranks) == ("unpaired-send", (0,))
    (negative,) = calls_of([recv(-1)], [])
    assert negative.rule == "unpaired-recv"


def test_peer_without_a_manifest_is_not_judged() -> None:
    assert rules(audit([loaded(0, 2, graph(send(1)))])) == ["missing-rank"]


def test_peer_without_the_graph_is_told_once_as_missing_graph() -> None:
    assert rules(audit(job([graph(send(1))], []))) == ["missing-graph"]


def test_order_of_point_to_point_calls_among_collectives_is_free() -> None:
    assert calls_of([send(1), call()], [call(), recv(0)]) == []


def test_one_sided_calls_are_not_compared_with_what_other_ranks_call() -> None:
    put = call("put_signal", 8, peer=1)
    assert calls_of([call(), put, call("wait_signal", 0)], [call()]) == []
    # Nor does it take part in what it is written to by: another rank needs no such graph.
    assert "missing-graph" not in rules(audit(job([graph(call("signal", 0, peer=1))], [])))
