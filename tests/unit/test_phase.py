"""The phase of a batch, from how far its requests are."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from graphguard import _core
from graphguard.verdict import Phase

COUNTS = st.integers(0, 2**31 - 1)


@given(st.lists(st.tuples(COUNTS, COUNTS), max_size=40))
def test_a_request_is_past_its_prompt_when_all_of_it_is_computed(
    requests: list[tuple[int, int]],
) -> None:
    computed = np.array([c for c, _ in requests] + [0], dtype=np.int32)
    prompts = np.array([p for _, p in requests] + [9], dtype=np.int32)
    in_prompt = [c < p for c, p in requests]
    expected = Phase.MIXED
    if not any(in_prompt):
        expected = Phase.DECODE
    elif all(in_prompt):
        expected = Phase.PREFILL

    assert Phase(_core.phase_of(computed, prompts, len(requests))) is expected
    assert Phase(_core.Phases(computed, prompts, False).of(len(requests))) is expected


def test_arrays_that_were_taken_are_read_as_they_are_now() -> None:
    computed, prompts = np.zeros(2, dtype=np.int32), np.full(2, 5, dtype=np.int32)
    phases = _core.Phases(computed, prompts, False)

    assert Phase(phases.of(2)) is Phase.PREFILL
    computed[0] = 5
    assert Phase(phases.of(2)) is Phase.MIXED
    assert Phase(phases.of(1)) is Phase.DECODE
    with pytest.raises(IndexError, match="more requests than the arrays have"):
        phases.of(3)


@pytest.mark.parametrize(
    ("computed", "prompt", "phase"),
    [
        (7, 8, Phase.DECODE),
        (6, 8, Phase.PREFILL),
        (8, 8, Phase.DECODE),
        # Nothing is computed: it is a prefill of its own.
        (0, 1, Phase.PREFILL),
        (0, 8, Phase.PREFILL),
        (2**31 - 1, 2**31 - 1, Phase.DECODE),
    ],
)
def test_the_last_token_of_a_prompt_decodes_if_asked(
    computed: int, prompt: int, phase: Phase
) -> None:
    arrays = np.array([computed], dtype=np.int32), np.array([prompt], dtype=np.int32)

    assert Phase(_core.Phases(*arrays, True).of(1)) is phase


def test_arrays_that_are_too_short_are_refused() -> None:
    long, short = np.zeros(4, dtype=np.int32), np.zeros(3, dtype=np.int32)

    for arrays in ((long, short), (short, long)):
        with pytest.raises(IndexError, match="more requests than the arrays have"):
            _core.phase_of(*arrays, 4)


@pytest.mark.parametrize("other", [np.zeros(4), np.zeros(8, dtype=np.int32)[::2], [0, 0, 0, 0]])
def test_what_is_no_plain_array_of_int32_is_refused(other: object) -> None:
    with pytest.raises(TypeError):
        _core.phase_of(np.zeros(4, dtype=np.int32), other, 4)
