from __future__ import annotations

import time
from itertools import combinations
from typing import Any

import pytest

from graphguard.audit import Severity, audit
from graphguard.audit.across_ranks import MAX_RANK_SETS
from graphguard.signature import CollectiveCall
from tests.unit.audit.jobs import call, calls_of, graph, job, loaded, rules

USUAL = [call(), call("all_gather"), call("reduce_scatter", reduction="sum")]


def test_ranks_that_recorded_the_same_calls_give_no_finding() -> None:
    assert calls_of(USUAL, USUAL, USUAL, USUAL) == []


@pytest.mark.parametrize(
    ("field", "value", "rule"),
    [
        ("operation", "broadcast", "collective-operation"),
        ("count", 2048, "collective-count"),
        ("count", None, "collective-count"),
        ("dtype", "float32", "collective-dtype"),
        ("reduction", "max", "collective-reduction"),
        ("root", 1, "collective-root"),
        ("group", "1[0-3]", "collective-group"),
        ("size", 8, "collective-group"),
        ("coalesced", True, "collective-coalescing"),
    ],
)
def test_first_differing_field_is_named_and_the_minority_blamed(
    field: str, value: Any, rule: str
) -> None:
    usual = {"operation": "all_gather"}
    odd = [call(), call(**{**usual, field: value}), call()]
    same = [call(), call(**usual), call()]  # type: ignore[arg-type]
    (finding,) = calls_of(same, same, odd, same)
    assert finding.rule == rule
    assert finding.severity is Severity.ERROR
    assert finding.ranks == (2,)
    assert finding.position == 1
    assert finding.graph == "target/full 16x2"
    assert [side.ranks for side in finding.sides] == [(0, 1, 3), (2,)]
    assert [side.text for side in finding.sides] == [str(same[1]), str(odd[1])]
    assert finding.evidence == ("rank0.json", "rank1.json", "rank2.json", "rank3.json")


def test_fields_that_rightly_differ_between_ranks_give_no_finding() -> None:
    assert calls_of(*([call(rank=rank, count=None, send_splits=())] for rank in range(4))) == []


def test_same_calls_in_another_order_are_told_as_order() -> None:
    swapped = [USUAL[0], USUAL[2], USUAL[1]]
    (finding,) = calls_of(USUAL, USUAL, swapped, USUAL)
    assert (finding.rule, finding.ranks, finding.position) == ("collective-order", (2,), 1)


@pytest.mark.parametrize("missing", [0, 1, 2])
def test_call_that_a_rank_leaves_out_is_named(missing: int) -> None:
    fewer = [c for i, c in enumerate(USUAL) if i != missing]
    (finding,) = calls_of(USUAL, fewer, USUAL, USUAL)
    assert (finding.rule, finding.ranks) == ("collective-missing", (1,))
    assert finding.position == missing
    assert finding.sides[0].text == str(USUAL[missing])


def test_extra_call_of_one_rank_is_named() -> None:
    (finding,) = calls_of(USUAL, [*USUAL, call("barrier", 0)], USUAL, USUAL)
    assert (finding.rule, finding.ranks, finding.position) == ("collective-missing", (1,), 3)
    assert "barrier" in finding.sides[1].text
    assert finding.sides[0].text == "no further call"


def test_field_is_told_before_a_call_that_is_missing_later() -> None:
    odd = [call(count=7), USUAL[1]]
    (finding,) = calls_of(USUAL, odd, USUAL, USUAL)
    assert (finding.rule, finding.position) == ("collective-count", 0)


def test_without_a_majority_both_sides_are_named() -> None:
    other = [call(count=2048)]
    (finding,) = calls_of([call()], [call()], other, other)
    assert finding.ranks == (0, 1, 2, 3)
    assert [side.ranks for side in finding.sides] == [(0, 1), (2, 3)]


def test_every_minority_gets_its_own_finding() -> None:
    same = [call()]
    first, second = calls_of(same, [call(count=1)], same, [call(dtype="float32")])
    assert (first.rule, second.rule) == ("collective-count", "collective-dtype")
    # Two of four are no majority.
    assert (first.ranks, second.ranks) == ((0, 1, 2), (0, 2, 3))


def test_pipeline_stages_with_different_calls_give_no_finding() -> None:
    first = [call(group="1[0,1]", size=2)] * 2
    second = [call("all_gather", group="2[2-3]", size=2)] * 3
    assert calls_of(first, first, second, second) == []


def test_difference_inside_one_pipeline_stage_is_found() -> None:
    first = [call(group="1[0,1]", size=2)]
    second = [call(group="2[2-3]", size=2)]
    odd = [call(count=1, group="2[2-3]", size=2)]
    (finding,) = calls_of(first, first, second, odd)
    assert (finding.rule, finding.ranks) == ("collective-count", (2, 3))


def test_other_order_of_two_communicators_is_found() -> None:
    a, b = call(group="0[0-3]"), call(group="1[0-3]")
    (finding,) = calls_of([a, b], [a, b], [b, a], [a, b])
    assert (finding.rule, finding.ranks) == ("collective-order", (2,))


def test_other_order_of_communicators_that_share_some_ranks_is_found() -> None:
    a, b = call(group="0[0-2]", size=3), call(group="1[1-3]", size=3)
    (finding,) = calls_of([a], [a, b], [b, a], [b])
    assert (finding.rule, finding.ranks) == ("collective-order", (1, 2))
    assert [side.ranks for side in finding.sides] == [(1,), (2,)]


def test_order_of_communicators_that_share_one_rank_is_free() -> None:
    a, b = call(group="0[0,1]", size=2), call(group="1[1,2]", size=2)
    assert calls_of([a], [b, a], [b]) == []


def test_difference_seen_in_nested_communicators_is_told_once() -> None:
    def calls(rank: int, count: int) -> list[CollectiveCall]:
        pair = call(group=f"{1 + rank // 2}[{rank // 2 * 2}-{rank // 2 * 2 + 1}]", size=2)
        return [pair, call(count=count), pair]

    (finding,) = calls_of(*(calls(rank, 7 if rank == 3 else 1024) for rank in range(4)))
    assert (finding.rule, finding.ranks, finding.position) == ("collective-count", (3,), 1)


def test_call_on_a_communicator_without_the_others_is_told_as_group() -> None:
    usual = [call(), call("all_gather")]
    odd = [call(), call("all_gather", group="7[3]", size=4)]
    (finding,) = calls_of(usual, usual, usual, odd)
    assert (finding.rule, finding.ranks, finding.position) == ("collective-group", (3,), 1)


def test_graph_that_a_member_did_not_capture_is_missing() -> None:
    extra = graph(call(), batch="32x2")
    ranks = [[graph(call()), extra] for _ in range(4)]
    ranks[2] = [graph(call())]
    (finding,) = audit(job(*ranks))
    assert (finding.rule, finding.ranks) == ("missing-graph", (2,))
    assert finding.graph == "target/full 32x2"
    assert str(call()) in finding.sides[0].text


def test_graph_without_collectives_may_be_on_one_rank_only() -> None:
    assert audit(job([graph()], [])) == []


def test_graph_may_be_absent_on_ranks_outside_its_communicator() -> None:
    inner = graph(call(group="1[0-1]", size=2))
    assert audit(job([inner], [inner], [], [])) == []


def test_graph_of_a_send_must_be_on_its_peer_only() -> None:
    send = call("send", peer=2)
    findings = audit(job([graph(send)], [], [], []))
    assert [(f.rule, f.ranks) for f in findings] == [("missing-graph", (2,))]


def test_graphs_of_same_batch_and_other_role_are_not_compared() -> None:
    assert audit(job(*([graph(call(), role="target"), graph(role="drafter")],) * 4)) == []
    findings = audit(job([graph(call(), role="a")], [graph(call(), role="b")]))
    assert rules(findings) == ["missing-graph", "missing-graph"]


def test_second_capture_of_a_graph_is_compared_with_the_second_of_the_others() -> None:
    one, two = graph(call(count=1)), graph(call(count=2))
    findings = audit(job([one, two], [two, one], [one, two], [one, two]))
    assert [(f.graph, f.rule, f.ranks) for f in findings if f.rule != "duplicate-capture"] == [
        ("target/full 16x2", "collective-count", (1,)),
        ("target/full 16x2 (capture 2)", "collective-count", (1,)),
    ]


def test_sends_between_collectives_do_not_count_as_their_difference() -> None:
    send, receive = call("send", peer=1), call("recv", peer=0)
    (finding,) = calls_of([send, call(), call(count=1)], [call(), receive, call(count=2)])
    assert (finding.rule, finding.position) == ("collective-count", 2)
    assert finding.sides[1].text == str(call(count=2))


def test_communicator_without_ranks_is_compared_between_its_callers() -> None:
    same, odd = [call(group="pynccl")], [call(group="pynccl", count=1)]
    findings = calls_of(same, same, odd)
    assert [(f.rule, f.ranks) for f in findings] == [
        ("collective-count", (2,)),
        ("unreadable-group", (0, 1, 2)),
    ]
    assert findings[1].severity is Severity.WARNING


def test_communicator_of_a_billion_ranks_costs_nothing() -> None:
    hostile = ",".join("0-9999999999" for _ in range(4000))
    started = time.process_time()
    findings = calls_of([call(group=f"x[{hostile}]")], [call(group=f"x[{hostile}]", count=1)])
    assert rules(findings) == ["collective-count"]
    assert time.process_time() - started < 5


def test_order_between_too_many_communicators_is_told_as_not_compared() -> None:
    groups = [[0, *others] for others in combinations(range(1, 14), 2)]
    texts = [f"{i}[{','.join(map(str, ranks))}]" for i, ranks in enumerate(groups)]
    assert len(texts) > MAX_RANK_SETS
    calls = [
        [
            call(group=text, size=3)
            for text, ranks in zip(texts, groups, strict=True)
            if rank in ranks
        ]
        for rank in range(14)
    ]
    findings = calls_of(*calls)
    assert [(f.rule, f.ranks) for f in findings] == [("too-many-groups", (0,))]


def test_only_manifests_that_are_there_are_compared() -> None:
    findings = audit([loaded(0, 4, graph(call())), loaded(2, 4, graph(call()))])
    assert rules(findings) == ["missing-rank"]
