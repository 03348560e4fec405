"""The enums of Python and of C++ are one list in two languages."""

from __future__ import annotations

import re
from enum import IntEnum
from pathlib import Path

import pytest

from graphguard import _core
from graphguard.verdict import Action, Phase, Reason, make_verdict

HEADER = Path(__file__).parents[2] / "csrc" / "core" / "verdict.h"
ENUMS: list[tuple[type[IntEnum], int]] = [
    (Phase, _core.PHASE_COUNT),
    (Action, _core.ACTION_COUNT),
    (Reason, _core.REASON_COUNT),
]


def enumerators(name: str) -> list[str]:
    body = re.search(rf"enum class {name} : [^{{]*{{([^}}]*)}}", HEADER.read_text())
    assert body is not None, f"no enum class {name} in {HEADER}"
    words = re.findall(r"\bk([A-Z]\w*)", re.sub(r"//.*", "", body[1]))
    return [re.sub(r"(?<=[a-z])(?=[A-Z])", "_", word).upper() for word in words]


@pytest.mark.parametrize(("enum", "count"), ENUMS)
def test_names_and_order_are_those_of_the_native_core(enum: type[IntEnum], count: int) -> None:
    assert enumerators(enum.__name__) == [member.name for member in enum]
    assert [member.value for member in enum] == list(range(count))


def test_every_reason_has_an_explanation_of_its_own() -> None:
    explanations = {reason.explanation for reason in Reason}
    assert len(explanations) == len(Reason)
    assert all(explanations)


def test_only_what_check_inputs_finds_is_local_to_a_rank() -> None:
    local = [reason.name for reason in Reason if reason.rank_local]
    assert local == [reason.name for reason in Reason if reason.name.startswith("INPUT_")]
    assert len(local) == 5


def test_a_verdict_says_action_and_reason_in_words() -> None:
    verdict = make_verdict(1, 1, 3)
    assert verdict.action is Action.PAD
    assert verdict.reason is Reason.PADDED
    assert str(verdict) == "pad (padded)"
