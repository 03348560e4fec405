"""What a program says that it is doing, besides launches."""

from __future__ import annotations

from pathlib import Path

import pytest

import graphguard
from graphguard.blackbox.pulse import ActivityKind, Pulse, read_pulse
from graphguard.blackbox.writer import process_box
from graphguard.errors import ConfigurationError
from graphguard.watch import activity
from tests.unit.blackbox.own_box import own_box

__all__ = ["own_box"]


def pulse() -> Pulse:
    box = process_box()
    assert box is not None
    read = read_pulse(box.path)
    assert read is not None
    return read


def test_it_is_under_way_within_the_block(own_box: Path) -> None:
    with activity.during(ActivityKind.STEP, "execute_model"):
        (found,) = pulse().activities
    assert (found.kind, found.name) == ("step", "execute_model")
    assert pulse().activities == ()


def test_an_error_ends_it(own_box: Path) -> None:
    with pytest.raises(ZeroDivisionError), activity.during(ActivityKind.STEP, "execute_model"):
        raise ZeroDivisionError
    assert pulse().activities == ()


def test_what_is_slow_is_so_within_the_block(own_box: Path) -> None:
    with graphguard.slow("autotuning", 60):
        found = pulse()
    assert found.extended_why == "autotuning"
    assert 55e9 < found.extended_ns <= 60e9
    assert pulse().extended_ns == 0


def test_of_two_the_longer_one_holds(own_box: Path) -> None:
    with graphguard.slow("loading", 60):
        with graphguard.slow("compiling", 600):
            assert pulse().extended_why == "compiling"
        found = pulse()
        assert found.extended_why == "loading"
        assert 0 < found.extended_ns <= 60e9


@pytest.mark.parametrize("seconds", [0, -1, float("nan"), 1e6])
def test_it_is_slow_for_seconds_up_to_a_day(own_box: Path, seconds: float) -> None:
    with (
        pytest.raises(ConfigurationError, match="slow\\(\\) is told of"),
        graphguard.slow("x", seconds),
    ):
        pass


def test_without_a_black_box_nothing_is_said_and_nothing_fails() -> None:
    ran = []
    with activity.during(ActivityKind.OTHER, "x"), graphguard.slow("y", 1):
        ran.append(True)
    assert ran
