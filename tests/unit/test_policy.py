"""Policies: modes and fallbacks from what a program says."""

import pytest

from graphguard import environment
from graphguard.environment import Mode
from graphguard.errors import ConfigurationError
from graphguard.policy import parse_on_divergence
from graphguard.verdict import Action, Reason


def test_one_word_holds_for_every_reason_that_all_ranks_see() -> None:
    fallbacks = parse_on_divergence("recapture")

    assert fallbacks[Reason.QUERY_LENGTH] is Action.RECAPTURE
    assert fallbacks[Reason.NO_GRAPH] is Action.RECAPTURE


def test_what_one_rank_alone_can_see_is_refused_unless_named() -> None:
    assert parse_on_divergence("eager")[Reason.INPUT_ADDRESS] is Action.ABORT
    assert parse_on_divergence({"input_address": "recapture"})[Reason.INPUT_ADDRESS] is (
        Action.RECAPTURE
    )


def test_reasons_can_be_set_one_by_one() -> None:
    fallbacks = parse_on_divergence({"wrong_phase": "raise", "default": "recapture"})

    assert fallbacks[Reason.WRONG_PHASE] is Action.ABORT
    assert fallbacks[Reason.QUERY_LENGTH] is Action.RECAPTURE


def test_a_batch_that_fits_has_no_fallback() -> None:
    assert not {Reason.EXACT, Reason.PADDED} & parse_on_divergence("eager").keys()


@pytest.mark.parametrize("wrong", ["ignore", {"wrong_phase": "ignore"}, {"fase": "eager"}])
def test_names_that_do_not_exist_are_refused_with_those_that_do(
    wrong: str | dict[str, str],
) -> None:
    with pytest.raises(ConfigurationError) as raised:
        parse_on_divergence(wrong)

    assert "eager" in raised.value.hint or "wrong_phase" in raised.value.hint


def test_the_mode_comes_from_the_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    assert environment.mode() is Mode.OBSERVE
    monkeypatch.setenv("GRAPHGUARD_MODE", "enforce")
    assert environment.mode() is Mode.ENFORCE
    monkeypatch.setenv("GRAPHGUARD_MODE", "strict")
    with pytest.raises(ConfigurationError, match="GRAPHGUARD_MODE asks for the mode 'strict'"):
        environment.mode()
