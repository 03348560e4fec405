"""Each rule of the check by name, and what the table promises beside the rules."""

from __future__ import annotations

from collections.abc import Callable

import pytest

from graphguard import _core
from graphguard.batch import BatchDescriptor
from graphguard.errors import ConfigurationError
from graphguard.signature import GraphKey, GraphMode, Signature, TensorSpec
from graphguard.table import SignatureTable
from graphguard.verdict import Action, Phase, Reason, Verdict

FULL = GraphKey("target")
PIECEWISE = GraphKey("target", GraphMode.PIECEWISE)
Check = Callable[[str], Verdict]


def table_of(*batches: str, key: GraphKey = FULL) -> tuple[SignatureTable, Check]:
    table = SignatureTable()
    family = table.family(key)
    for text in batches:
        table.add(Signature(key, BatchDescriptor.parse(text)))

    def check(text: str) -> Verdict:
        batch = BatchDescriptor.parse(text)
        return table.check(family, batch.num_reqs, batch.query_len, batch.num_tokens, batch.phase)

    return table, check


def miss(reason: Reason) -> Verdict:
    return Verdict(Action.EAGER, reason, None)


def test_a_batch_that_a_graph_was_recorded_for_replays_it() -> None:
    _, check = table_of("8x2", "16x2")
    assert check("16x2") == Verdict(Action.REPLAY, Reason.EXACT, 1)


def test_fewer_decode_requests_are_padded() -> None:
    _, check = table_of("16x2")
    assert check("15x2") == Verdict(Action.PAD, Reason.PADDED, 0)


def test_a_prefill_of_1_plus_k_tokens_does_not_replay_the_graph_for_verifying_k_drafts() -> None:
    _, check = table_of("1x4", "2x4")
    assert check("1x4:prefill") == miss(Reason.WRONG_PHASE)
    assert check("1x4") == Verdict(Action.REPLAY, Reason.EXACT, 0)


def test_fewer_requests_of_another_phase_are_not_padded() -> None:
    _, check = table_of("16x2")
    assert check("15x2:prefill") == miss(Reason.WRONG_PHASE)
    assert check("15x2:mixed") == miss(Reason.WRONG_PHASE)


def test_a_batch_that_is_no_decode_is_never_padded() -> None:
    _, check = table_of("16x2:prefill")
    assert check("15x2:prefill") == miss(Reason.NOT_DECODE)
    assert check("16x2:prefill") == Verdict(Action.REPLAY, Reason.EXACT, 0)


def test_15_requests_of_1_token_do_not_enter_the_graph_of_16_times_2() -> None:
    _, check = table_of("16x2")
    assert check("15x1") == miss(Reason.QUERY_LENGTH)


def test_as_many_tokens_in_another_shape_do_not_fit() -> None:
    _, check = table_of("16x2")
    assert check("32x1") == miss(Reason.QUERY_LENGTH)
    assert check("8x4") == miss(Reason.QUERY_LENGTH)


def test_more_requests_than_any_graph_holds() -> None:
    _, check = table_of("16x2", "8x2")
    assert check("17x2") == miss(Reason.TOO_MANY_REQUESTS)


def test_requests_that_differ_in_length_do_not_enter_a_uniform_graph() -> None:
    _, check = table_of("5x20")
    assert check("5x20/37") == miss(Reason.NOT_UNIFORM)


def test_a_graph_of_unequal_requests_takes_only_its_own_shape() -> None:
    _, check = table_of("5x20/37:mixed")
    assert check("5x20/37:mixed") == Verdict(Action.REPLAY, Reason.EXACT, 0)
    assert check("5x20/36:mixed") == miss(Reason.NOT_UNIFORM)
    assert check("4x20/37:mixed") == miss(Reason.NOT_UNIFORM)
    assert check("5x20") == miss(Reason.NOT_UNIFORM)
    assert check("5x20/37") == miss(Reason.WRONG_PHASE)


def test_a_piecewise_graph_counts_tokens_alone() -> None:
    _, check = table_of("32t", key=PIECEWISE)
    exact, padded = Verdict(Action.REPLAY, Reason.EXACT, 0), Verdict(Action.PAD, Reason.PADDED, 0)
    assert [check(text) for text in ("16x2", "32x1:prefill", "5x20/32:mixed")] == [exact] * 3
    assert [check(text) for text in ("15x2", "1x31:prefill", "5x20/31:mixed")] == [padded] * 3


def test_more_tokens_than_any_piecewise_graph_holds() -> None:
    _, check = table_of("16t", "32t", key=PIECEWISE)
    assert check("33t") == miss(Reason.TOO_MANY_TOKENS)


@pytest.mark.parametrize("order", [("8x1", "32x1", "16x1"), ("32x1", "16x1", "8x1")])
def test_the_graph_with_the_least_padding_wins(order: tuple[str, ...]) -> None:
    _, check = table_of(*order)
    assert check("9x1").graph == order.index("16x1")


@pytest.mark.parametrize("order", [("8t", "32t", "16t"), ("32t", "16t", "8t")])
def test_the_piecewise_graph_with_the_least_padding_wins(order: tuple[str, ...]) -> None:
    _, check = table_of(*order, key=PIECEWISE)
    assert check("9t").graph == order.index("16t")


@pytest.mark.parametrize(("recorded", "key"), [("16x2", FULL), ("32t", PIECEWISE)])
def test_of_equal_graphs_the_first_inserted_wins(recorded: str, key: GraphKey) -> None:
    _, check = table_of(recorded, recorded, key=key)
    assert check("16x2").graph == 0
    assert check("15x2").graph == 0


def test_of_equal_graphs_of_unequal_requests_the_first_inserted_wins() -> None:
    _, check = table_of("5x20/37", "5x20/37")
    assert check("5x20/37").graph == 0


def test_an_empty_family_has_no_graph() -> None:
    for key in (FULL, PIECEWISE):
        _, check = table_of(key=key)
        assert check("1x1") == miss(Reason.NO_GRAPH)
        assert check("2x3/4") == miss(Reason.NO_GRAPH)


def test_families_do_not_share_graphs() -> None:
    table, check = table_of("16x2")
    drafter = table.family(GraphKey("drafter"))
    assert table.check(drafter, 16, 2, 32, Phase.DECODE) == miss(Reason.NO_GRAPH)
    assert check("16x2").graph == 0
    assert table.family(FULL) == table.family(GraphKey("target")) != drafter


@pytest.mark.parametrize(
    ("recorded", "batch", "reason"),
    [
        (("4x2:prefill", "8x2"), "4x2", Reason.PADDED),
        (("4x2:prefill", "8x4", "2x2"), "4x2", Reason.WRONG_PHASE),
        (("8x2:prefill", "8x2"), "4x2:prefill", Reason.WRONG_PHASE),
        (("8x2:prefill", "4x2:prefill"), "6x2:prefill", Reason.NOT_DECODE),
        (("2x2", "4x1", "3x3/4"), "4x2", Reason.TOO_MANY_REQUESTS),
        (("4x1", "3x3/4"), "4x2", Reason.QUERY_LENGTH),
        (("3x3/4",), "4x2", Reason.NOT_UNIFORM),
    ],
)
def test_the_reason_is_that_of_the_graph_that_comes_nearest(
    recorded: tuple[str, ...], batch: str, reason: Reason
) -> None:
    _, check = table_of(*recorded)
    assert check(batch).reason is reason


def test_a_product_beyond_32_bits_is_not_uniform() -> None:
    table, _ = table_of("1x65536")
    assert table.check(0, 65_537, 65_536, 65_536, Phase.DECODE) == miss(Reason.NOT_UNIFORM)


@pytest.mark.parametrize("size", [65_534, 65_535, 65_536, 65_537, 2**31 - 1])
def test_sizes_around_the_end_of_the_direct_index(size: int) -> None:
    _, check = table_of(f"{size}x1", "4x1")
    assert check(f"{size}x1") == Verdict(Action.REPLAY, Reason.EXACT, 0)
    assert check(f"{size - 1}x1") == Verdict(Action.PAD, Reason.PADDED, 0)
    assert check("5x1") == Verdict(Action.PAD, Reason.PADDED, 0)


def test_an_unknown_family_is_an_index_error() -> None:
    table, _ = table_of("16x2")
    with pytest.raises(IndexError, match="no such family"):
        table.check(1, 16, 2, 32, Phase.DECODE)
    with pytest.raises(IndexError, match="no such family"):
        table.insert(1, 16, 2, 32, Phase.DECODE, [])
    assert len(table) == 1


@pytest.mark.parametrize("number", [-1, 2**32, 2**70])
@pytest.mark.parametrize("position", range(5))
def test_numbers_that_no_batch_has_are_refused(number: int, position: int) -> None:
    table, _ = table_of("16x2")
    arguments = [0, 16, 2, 32, 0]
    arguments[position] = number
    with pytest.raises((TypeError, OverflowError)):
        table.check(*arguments)
    assert table.counts() == []


def test_an_unknown_phase_reason_or_action_is_refused() -> None:
    table, _ = table_of("16x2")
    with pytest.raises(ValueError, match="no such phase"):
        table.check(0, 16, 2, 32, _core.PHASE_COUNT)
    with pytest.raises(ValueError, match="no such reason"):
        table.set_fallback(_core.REASON_COUNT, Action.EAGER)
    with pytest.raises(ValueError, match="no such action"):
        table.set_fallback(Reason.NO_GRAPH, _core.ACTION_COUNT)


def test_a_check_makes_no_new_object() -> None:
    _, check = table_of("16x2")
    for text in ("16x2", "15x2", "17x2", "16x2:prefill", "16x3"):
        assert check(text) is check(text)


def test_counts_tell_every_verdict_and_how_often() -> None:
    table, check = table_of("16x2", "32x2")
    for text in ("16x2", "15x2", "15x2", "31x2", "33x2", "33x2", "33x2"):
        check(text)
    assert dict(table.counts()) == {
        Verdict(Action.REPLAY, Reason.EXACT, 0): 1,
        Verdict(Action.PAD, Reason.PADDED, 0): 2,
        Verdict(Action.PAD, Reason.PADDED, 1): 1,
        miss(Reason.TOO_MANY_REQUESTS): 3,
    }


@pytest.mark.parametrize(
    ("reason", "batch", "key"),
    [
        (Reason.WRONG_PHASE, "16x2:prefill", FULL),
        (Reason.NOT_DECODE, "3x7:prefill", FULL),
        (Reason.TOO_MANY_REQUESTS, "17x2", FULL),
        (Reason.QUERY_LENGTH, "16x3", FULL),
        (Reason.NOT_UNIFORM, "16x2/30", FULL),
        (Reason.TOO_MANY_TOKENS, "33t", PIECEWISE),
        (Reason.NO_GRAPH, "1x1", GraphKey("drafter")),
    ],
)
@pytest.mark.parametrize("action", [Action.RECAPTURE, Action.ABORT])
def test_each_reason_has_a_fallback_of_its_own(
    reason: Reason, batch: str, key: GraphKey, action: Action
) -> None:
    table, _ = table_of("16x2", "4x7:prefill")
    table.add(Signature(PIECEWISE, BatchDescriptor.tokens(32)))
    descriptor = BatchDescriptor.parse(batch)
    numbers = (descriptor.num_reqs, descriptor.query_len, descriptor.num_tokens, descriptor.phase)
    assert table.check(table.family(key), *numbers) == miss(reason)
    table.on(reason, action)
    assert table.check(table.family(key), *numbers) == Verdict(action, reason, None)
    others = [other for other in Reason if Reason.PADDED < other != reason]
    for other in others:
        table.on(other, Action.EAGER)
    assert table.check(table.family(key), *numbers).action is action


@pytest.mark.parametrize("reason", [Reason.EXACT, Reason.PADDED])
def test_a_batch_that_fits_has_no_fallback(reason: Reason) -> None:
    table, check = table_of("16x2")
    with pytest.raises(ValueError, match="has no fallback"):
        table.on(reason, Action.EAGER)
    assert check("16x2").action is Action.REPLAY
    assert check("15x2").action is Action.PAD


def test_check_graph_judges_the_graph_that_somebody_else_chose() -> None:
    table, check = table_of("8x2", "16x2")
    assert check("8x2").graph == 0
    assert table.check_graph(1, 8, 2, 16, Phase.DECODE) == Verdict(Action.PAD, Reason.PADDED, 1)
    assert table.check_graph(0, 8, 2, 16, Phase.DECODE) == Verdict(Action.REPLAY, Reason.EXACT, 0)
    assert table.check_graph(0, 9, 2, 18, Phase.DECODE) == miss(Reason.TOO_MANY_REQUESTS)
    with pytest.raises(IndexError, match="no such graph"):
        table.check_graph(2, 8, 2, 16, Phase.DECODE)


def test_more_inputs_or_dimensions_than_the_native_table_takes_are_refused() -> None:
    table = SignatureTable()
    flat = TensorSpec("x", (1,), "int64", (1,), "cpu", 0, 8)
    deep = TensorSpec("x", (1,) * 17, "int64", (1,) * 17, "cpu", 0, 8)
    for tensors in ((flat,) * 65, (deep,)):
        signature = Signature(FULL, BatchDescriptor.of(1, 1), tensors, len(tensors))
        with pytest.raises(ConfigurationError, match="cannot be checked"):
            table.add(signature)
    assert len(table) == 0
    assert table.add(Signature(FULL, BatchDescriptor.of(1, 1), (flat,) * 64, 64)) == 0
