"""Agreement at capture: what is told of ranks that captured different graphs."""

import logging
from collections.abc import Callable, Sequence
from functools import partial

import msgspec
import pytest

from graphguard.agreement import calls as call_posts
from graphguard.agreement.rendezvous import Rendezvous
from graphguard.agreement.seal import SealOutcome, difference_error, seal
from graphguard.environment import Mode
from graphguard.errors import AgreementError, RankMissing
from graphguard.signature import CollectiveCall, GraphKey, GraphMode, Signature
from tests.unit.agreement.ranks import all_at_once, group, memory
from tests.unit.audit.jobs import call, graph

SECONDS = 30.0
KEY = GraphKey("target")
REDUCE = call("all_reduce", 64, reduction="sum")
GATHER = call("all_gather", 16)


def sealed(
    graphs: Sequence[Sequence[Signature]],
    *,
    ranks: Sequence[int] = (),
    modes: Sequence[Mode] = (),
    keys: Sequence[GraphKey] = (),
    failures: Sequence[str] = (),
    rendezvous: Sequence[Rendezvous] = (),
) -> list[SealOutcome]:
    """What every rank finds if rank r captured the graphs number r."""
    ranks = ranks or range(len(graphs))
    members = rendezvous or group(memory(), ranks, f"0[0-{len(graphs) - 1}]")
    results = all_at_once(
        [
            partial(
                seal,
                member,
                keys[i] if keys else KEY,
                graphs[i],
                mode=modes[i] if modes else Mode.ENFORCE,
                failure=failures[i] if failures else "",
                seconds=SECONDS,
            )
            for i, member in enumerate(members)
        ]
    )
    outcomes = []
    for result in results:
        assert isinstance(result, SealOutcome), result
        outcomes.append(result)
    assert all(outcome.differences == outcomes[0].differences for outcome in outcomes)
    assert all(outcome.failures == outcomes[0].failures for outcome in outcomes)
    return outcomes


def told(graphs: Sequence[Sequence[Signature]], **options: object) -> list[str]:
    """The differences that every rank finds, as text."""
    return [str(difference) for difference in sealed(graphs, **options)[0].differences]  # type: ignore[arg-type]


def one_graph(*calls: Sequence[CollectiveCall]) -> list[list[Signature]]:
    """One graph on each rank, with the calls that are given for it."""
    return [[graph(*own)] for own in calls]


def test_equal_captures_are_agreed_with_one_line_on_each_rank(
    caplog: pytest.LogCaptureFixture,
) -> None:
    caplog.set_level(logging.INFO, logger="graphguard")
    captures = [graph(REDUCE, GATHER), graph(REDUCE, batch="8x2")]

    outcomes = sealed([captures] * 3)

    assert all(outcome.agreed for outcome in outcomes)
    lines = sorted(record.getMessage().partition(", compared in")[0] for record in caplog.records)
    assert lines == [
        f"rank {rank}: the 3 ranks of 0[0-2] agree on target/full: 2 graphs with 3 collective calls"
        for rank in range(3)
    ]


def test_the_digests_of_all_ranks_get_names() -> None:
    ours, theirs = graph(REDUCE), graph(GATHER)

    outcome = sealed([[ours], [theirs]])[0]

    assert outcome.digest_names == {
        ours.shared_digest: "target/full 16x2",
        theirs.shared_digest: "target/full 16x2",
    }


def test_families_of_one_size_that_are_sealed_together_are_told_apart() -> None:
    def captured(*calls: CollectiveCall) -> list[Signature]:
        pieces = msgspec.structs.replace(graph(*calls), key=GraphKey("target", GraphMode.PIECEWISE))
        return [graph(REDUCE), pieces]

    equal = sealed([captured(GATHER), captured(GATHER)])[0]
    differs = sealed([captured(GATHER), captured(REDUCE)])[0]

    assert equal.agreed
    assert set(equal.digest_names.values()) == {"target/full 16x2", "target/piecewise 16x2"}
    assert [difference.graph for difference in differs.differences] == ["target/piecewise 16x2"]


def test_one_collective_more_is_told_with_its_position_and_both_sides() -> None:
    differences = sealed(one_graph([REDUCE, GATHER], [REDUCE, REDUCE, GATHER], [REDUCE, GATHER]))[
        0
    ].differences

    assert [str(difference) for difference in differences] == [
        "target/full 16x2: rank 1 has 3 collective calls where ranks 0, 2 have 2, first at call 1 "
        "(ranks 0, 2: all_gather(16 bfloat16) on 0[0-3]; "
        "rank 1: all_reduce(64 bfloat16, sum) on 0[0-3])"
    ]
    assert differences[0].rule == "collective-missing"
    assert differences[0].blamed == (1,)
    assert differences[0].position == 1


OTHERS = {
    "collective-dtype": (call("all_reduce", 64, reduction="sum", dtype="float32"), "another dtype"),
    "collective-count": (call("all_reduce", 65, reduction="sum"), "another count"),
    "collective-reduction": (call("all_reduce", 64, reduction="max"), "another reduction"),
    "collective-root": (call("all_reduce", 64, reduction="sum", root=1), "another root"),
    "collective-operation": (call("broadcast", 64, reduction="sum"), "another operation"),
    "collective-group": (
        call("all_reduce", 64, reduction="sum", group="9[0-3]"),
        "another communicator",
    ),
}


@pytest.mark.parametrize("rule", OTHERS)
def test_the_field_that_differs_is_told(rule: str) -> None:
    other, what = OTHERS[rule]

    differences = sealed(one_graph([GATHER, other], [GATHER, REDUCE], [GATHER, REDUCE]))[
        0
    ].differences

    assert [difference.rule for difference in differences] == [rule]
    assert f"rank 0 has {what} than ranks 1-2" in differences[0].what
    assert differences[0].position == 1
    assert differences[0].blamed == (0,)
    assert [side.ranks for side in differences[0].sides] == [(1, 2), (0,)]


def test_without_a_majority_nobody_is_blamed() -> None:
    outcome = sealed(one_graph([REDUCE], [GATHER]))[0]

    assert outcome.differences[0].blamed == ()
    assert outcome.differences[0].what == "rank 0 and rank 1 differ in the operation of a call"


def test_two_against_two_is_no_majority() -> None:
    differences = sealed(one_graph([REDUCE], [GATHER], [REDUCE], [GATHER]))[0].differences

    assert differences[0].blamed == ()
    assert [side.ranks for side in differences[0].sides] == [(0, 2), (1, 3)]


def test_swapped_calls_are_told_as_another_order() -> None:
    swapped, usual = [GATHER, REDUCE], [REDUCE, GATHER]

    assert told(one_graph(usual, swapped))[0].startswith(
        "target/full 16x2: rank 0 and rank 1 make the same calls in different orders, first at "
        "call 0"
    )
    assert told(one_graph(usual, swapped, usual))[0].startswith(
        "target/full 16x2: rank 1 makes the calls of ranks 0, 2 in another order, first at call 0"
    )


def test_sends_and_receives_are_not_compared_and_keep_their_positions() -> None:
    send, receive = call("send", 4, peer=1), call("recv", 4, peer=0)

    assert sealed(one_graph([send, REDUCE], [receive, REDUCE]))[0].agreed
    assert told(one_graph([send, REDUCE], [receive, GATHER]))[0].startswith(
        "target/full 16x2: rank 0 and rank 1 differ in the operation of a call, first at call 1"
    )


def test_a_graph_that_one_rank_alone_lacks_is_told() -> None:
    small, large = graph(REDUCE, batch="8x2"), graph(REDUCE)

    differences = sealed([[large, small], [large], [large, small]])[0].differences

    assert [str(difference) for difference in differences] == [
        "target/full 8x2: rank 1 did not capture a graph that ranks 0, 2 did "
        "(ranks 0, 2: captured; rank 1: not captured)"
    ]
    assert differences[0].blamed == (1,)


def test_a_graph_that_one_rank_alone_has_is_told() -> None:
    small, large = graph(REDUCE, batch="8x2"), graph(REDUCE)

    differences = sealed([[large], [large, small], [large]])[0].differences

    assert "ranks 0, 2 did not capture a graph that rank 1 did" in differences[0].what
    assert differences[0].blamed == (1,)


def test_another_order_of_captures_is_told() -> None:
    small, large = graph(REDUCE, batch="8x2"), graph(REDUCE)

    assert told([[large, small], [small, large], [large, small]]) == [
        "rank 1 captured the graphs of target/full in another order than ranks 0, 2 "
        "(ranks 0, 2: 16x2 as number 0; rank 1: 8x2 as number 0)"
    ]


def test_other_modes_are_told() -> None:
    captures = [[graph(REDUCE)]] * 3

    assert told(captures, modes=[Mode.ENFORCE, Mode.OBSERVE, Mode.ENFORCE]) == [
        "rank 1 runs in another mode than ranks 0, 2 (ranks 0, 2: enforce; rank 1: observe)"
    ]


def test_other_families_are_told_and_nothing_else_of_them() -> None:
    captures = [[graph(REDUCE)], [graph(GATHER, role="drafter")], [graph(REDUCE)]]

    assert told(captures, keys=[KEY, GraphKey("drafter"), KEY]) == [
        "rank 1 sealed another family of graphs than ranks 0, 2 "
        "(ranks 0, 2: target/full; rank 1: drafter/full)"
    ]


def test_a_failed_capture_is_told_to_all_ranks_and_what_it_left_out_is_no_difference() -> None:
    large, small = graph(REDUCE), graph(REDUCE, batch="8x2")

    outcomes = sealed([[large, small], [large]], failures=["", "out of memory"])

    assert outcomes[0].differences == ()
    assert outcomes[0].failures == {1: "out of memory"}
    assert not outcomes[0].agreed
    error = difference_error(outcomes[0].differences, KEY, 0, outcomes[0].failures)
    assert "rank 1 could not capture: out of memory" in str(error)


def test_what_a_rank_captured_before_it_failed_is_compared() -> None:
    outcome = sealed(one_graph([REDUCE], [GATHER]), failures=["", "out of memory"])[0]

    assert [difference.rule for difference in outcome.differences] == ["collective-operation"]


def test_the_calls_of_the_first_graphs_are_told_and_the_others_named() -> None:
    batches = [f"{size}x2" for size in range(1, 8)]

    differences = sealed(
        [[graph(own, batch=batch) for batch in batches] for own in (REDUCE, REDUCE, GATHER)]
    )[0].differences

    assert [difference.graph for difference in differences] == [f"target/full {b}" for b in batches]
    assert [difference.position for difference in differences] == [0] * 4 + [None] * 3
    assert differences[-1].what == "rank 2 has other collective calls than ranks 0-1"


def test_calls_beyond_what_can_be_posted_are_told_without_a_position(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(call_posts, "MAX_POST_BYTES", 400)
    many = [REDUCE] * 1_000

    assert (
        "different collective calls, but not among the first"
        in (told(one_graph([*many, REDUCE], [*many, GATHER]))[0])
    )
    assert "first at call 2 " in told(one_graph([REDUCE] * 3, [REDUCE, REDUCE, GATHER, *many]))[0]


def test_ranks_outside_each_others_communicators_are_not_compared_by_them() -> None:
    """Tensor-parallel ranks 0 and 1, each with a data-parallel group of its own."""
    tensor = call("all_reduce", 64, reduction="sum", group="1[0-1]", size=2)
    data = [call("all_gather", 16, group=f"{3 + r}[{r},{r + 2}]", size=2) for r in range(2)]
    captures = one_graph([tensor, data[0], tensor], [tensor, data[1], tensor])

    outcomes = sealed(captures)

    assert all(outcome.agreed for outcome in outcomes)
    ours, theirs = (captures[rank][0].shared_digest for rank in range(2))
    assert ours != theirs
    # What both can publish of this graph is the same.
    assert outcomes[0].group_digests[ours] == outcomes[1].group_digests[theirs]
    names = outcomes[0].digest_names
    assert {names[d] for d in (ours, theirs, outcomes[0].group_digests[ours])} == {
        "target/full 16x2"
    }


def test_ranks_are_compared_by_the_communicators_that_they_share() -> None:
    """Four ranks, two pairs: rank 3 alone has another count in its pair's communicator."""
    pairs = [call("all_reduce", 64, group=f"{1 + p}[{2 * p}-{2 * p + 1}]", size=2) for p in (0, 1)]
    odd = call("all_reduce", 65, group="2[2-3]", size=2)

    differences = sealed(
        one_graph([REDUCE, pairs[0]], [REDUCE, pairs[0]], [REDUCE, pairs[1]], [REDUCE, odd])
    )[0].differences

    assert [str(difference) for difference in differences] == [
        "target/full 16x2: rank 2 and rank 3 differ in the count of a call, first at call 1 "
        "(rank 2: all_reduce(64 bfloat16) on 2[2-3]; rank 3: all_reduce(65 bfloat16) on 2[2-3])"
    ]


def test_the_order_between_two_communicators_is_compared_by_the_ranks_of_both() -> None:
    first = call("all_reduce", 64, group="1[0-2]", size=3)
    second = call("all_reduce", 64, group="2[0-1,3]", size=3)

    differences = sealed(one_graph([first, second], [second, first], [first], [second]))[
        0
    ].differences

    assert len(differences) == 1
    assert differences[0].rule == "collective-order"
    assert [side.ranks for side in differences[0].sides] == [(0,), (1,)]


def test_a_difference_is_told_once_though_it_is_seen_in_several_communicators() -> None:
    pair = call("all_reduce", 8, group="1[0-1]", size=2)

    differences = sealed(one_graph([REDUCE, pair], [GATHER, pair], [REDUCE]))[0].differences

    assert [difference.rule for difference in differences] == ["collective-operation"]
    assert differences[0].blamed == (1,)


def test_communicators_whose_ranks_are_unknown_are_left_out_and_named(
    caplog: pytest.LogCaptureFixture,
) -> None:
    caplog.set_level(logging.INFO, logger="graphguard")
    own = [call("all_reduce", 8, group=f"custom{rank}[]") for rank in range(2)]

    outcomes = sealed(one_graph([REDUCE, own[0]], [REDUCE, own[1]]))

    assert all(outcome.agreed for outcome in outcomes)
    assert all("calls on custom0[], custom1[] were not compared" in m for m in caplog.messages)


def test_communicators_that_leave_out_a_rank_that_uses_them_are_named() -> None:
    wrong = call("all_reduce", 8, group="1[2-3]", size=2)

    assert sealed(one_graph([REDUCE, wrong], [REDUCE]))[0].unreadable == ("1[2-3]",)


def test_a_family_can_be_sealed_again_and_another_after_it() -> None:
    members = group(memory())
    assert sealed(one_graph([REDUCE], [REDUCE]), rendezvous=members)[0].agreed
    assert sealed(one_graph([REDUCE], [GATHER]), rendezvous=members)[0].differences
    assert sealed(one_graph([GATHER], [GATHER]), rendezvous=members)[0].agreed


def test_global_ranks_are_told() -> None:
    usual, other = (call(name, 64, group="2[4,6,9]", size=3) for name in ("reduce", "all_reduce"))

    outcome = sealed(one_graph([usual], [other], [usual]), ranks=(4, 6, 9))[2]

    assert outcome.rank == 9
    assert outcome.differences[0].blamed == (6,)


def test_the_error_is_the_same_on_every_rank_but_for_its_name() -> None:
    outcomes = sealed(one_graph([REDUCE], [GATHER]))

    texts = [str(difference_error(o.differences, KEY, o.rank)) for o in outcomes]

    assert texts[0].startswith("rank 0: the ranks did not capture the same for target/full:\n  - ")
    assert texts[1] == texts[0].replace("rank 0: the", "rank 1: the", 1)


def test_an_error_does_not_list_hundreds_of_differences() -> None:
    batches = [f"{size}x2" for size in range(1, 101)]
    outcome = sealed([[graph(own, batch=b) for b in batches] for own in (REDUCE, GATHER)])[0]

    text = str(difference_error(outcome.differences, KEY, 0))

    assert len(outcome.differences) == 100
    assert text.count("\n  - ") == 17
    assert "and 84 more" in text


def test_a_rank_that_does_not_come_is_an_error() -> None:
    with pytest.raises(RankMissing) as error:
        seal(group(memory())[0], KEY, [graph(REDUCE)], mode=Mode.OBSERVE, seconds=0.2)

    assert error.value.missing == (1,)


HOSTILE = {
    "nothing": b"",
    "no map": msgspec.msgpack.encode([1, 2, 3]),
    "a digest that is none": msgspec.msgpack.encode(
        {"mode": "off", "key": "target/full", "graphs": [["16x2", "../../etc", 1]]}
    ),
    "a negative count": msgspec.msgpack.encode(
        {"mode": "off", "key": "target/full", "graphs": [["16x2", "0" * 32, -1]]}
    ),
    "a long mode": msgspec.msgpack.encode({"mode": "o" * 1_000, "key": "target/full"}),
    "deep nesting": b"\x91" * 100_000,
}


@pytest.mark.parametrize("post", HOSTILE)
def test_what_no_rank_would_post_is_an_error(post: str) -> None:
    members = group(memory())

    calls: list[Callable[[], object]] = [
        partial(seal, members[0], KEY, [graph(REDUCE)], mode=Mode.ENFORCE, seconds=SECONDS),
        partial(members[1].exchange, "seal", HOSTILE[post], SECONDS),
    ]

    results = all_at_once(calls)

    assert isinstance(results[0], AgreementError)
    assert "what rank 1 posted about its captures cannot be read" in str(results[0])


def test_calls_that_point_outside_their_table_are_left_out() -> None:
    post = msgspec.msgpack.encode({"table": [], "graphs": [["16x2", 3, [0, 7, 2**40]]]})

    assert msgspec.msgpack.decode(post, type=call_posts.PostedCalls).of("16x2") == ()
