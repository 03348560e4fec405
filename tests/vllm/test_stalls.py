"""Stalls of a real engine on the CPU with emulated graphs: told in seconds, with class and rank.

All that can be made to happen is in ``tests/vllm/stalls``; ``make stalls`` runs it, beside what
vLLM says of it alone.
"""

from __future__ import annotations

import importlib.util
from collections.abc import Iterator

import msgspec
import pytest

from tests.vllm.engine import EngineRun
from tests.vllm.stalls import cases
from tests.vllm.stalls.cases import Case
from tests.vllm.stalls.harness import Seen, happen, happen_at_start, stalling_engine
from tests.vllm.stalls.observing import Observer

pytestmark = [
    pytest.mark.skipif(
        importlib.util.find_spec("vllm") is None,
        reason="vLLM is not installed here: see tests/vllm/engine/README.md",
    ),
    pytest.mark.timeout(900),
]

LATE_SECONDS = 10.0
"""How long after its limit a stall may be told where the machine has other things to do."""

STOPPED = msgspec.structs.replace(cases.STOPPED[0], hold=0.1)
SPINS_IN_C = msgspec.structs.replace(cases.SPINS_IN_C, hold=0.1)
SHORT, ANNOUNCED = cases.BENIGN[:2]

Stalling = tuple[EngineRun, Observer]


@pytest.fixture(scope="module")
def stalling() -> Iterator[Stalling]:
    with stalling_engine() as started:
        yield started


def seen_in(stalling: Stalling, case: Case) -> Seen:
    return checked(happen(*stalling, case, graphs=True))


def checked(seen: Seen) -> Seen:
    assert [problem for problem in seen.problems if not problem.startswith("late")] == []
    if seen.told_after is not None:
        assert seen.told_after < seen.limit + LATE_SECONDS
    return seen


@pytest.mark.parametrize("case", [SHORT, ANNOUNCED], ids=["stopped for 3 s", "slow for 8 s"])
def test_what_is_over_soon_or_says_that_it_is_slow_is_no_stall(
    stalling: Stalling, case: Case
) -> None:
    seen = seen_in(stalling, case)

    assert (seen.lines, seen.outcome) == (0, "served")


def test_a_rank_that_is_stopped_is_named_and_so_is_that_it_went_on(stalling: Stalling) -> None:
    seen = seen_in(stalling, STOPPED)

    assert (seen.said, seen.blamed, seen.waiting) == ("stopped", (0,), (1,))
    assert seen.over.startswith("recovered after")
    assert seen.outcome == "served"


def test_c_code_that_holds_the_interpreter_is_named_though_both_cores_are_spun_on(
    stalling: Stalling,
) -> None:
    seen = seen_in(stalling, SPINS_IN_C)

    assert (seen.said, seen.blamed, seen.waiting) == ("host-stuck", (1,), (0,))
    assert "_spin_in_c" in seen.where
    assert seen.outcome == "served"


def test_an_exception_that_vllm_does_not_ask_for_is_named(stalling: Stalling) -> None:
    """Last: the engine is dead when it ends."""
    seen = seen_in(stalling, cases.RAISES)

    assert (seen.said, seen.blamed, seen.waiting) == ("worker-error", (1,), (0,))
    assert "InjectedError" in seen.told
    assert seen.told_after is not None
    assert seen.told_after < seen.vllm["timed out"]


def test_a_rank_that_hangs_in_start_up_is_named() -> None:
    seen = checked(happen_at_start(msgspec.structs.replace(cases.STARTUP[-1], hold=1.0)))

    assert (seen.said, seen.blamed) == ("host-stuck", (1,))
    assert seen.outcome == "started"
