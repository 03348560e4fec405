"""What marks are called: which recorded call each of them is of."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import groupby

from graphguard.communication import Match, explained
from graphguard.signature import CollectiveCall

Unit = tuple[CollectiveCall, ...]
"""Calls that one kernel runs: one, or several that were issued as one."""


def call_text(call: CollectiveCall) -> str:
    """Say what a call is: ``all_reduce of 4096 float16 over tp:0[0-1]``."""
    count = "?" if call.count is None else call.count
    text = f"{call.operation} of {count} {call.dtype} over {call.group}"
    for word, value in (("root", call.root), ("peer", call.peer)):
        if value is not None:
            text += f", {word} {value}"
    return text


def unit_text(unit: Unit) -> str:
    """Say what the calls are that one mark stands for."""
    first = call_text(unit[0])
    return first if len(unit) == 1 else f"{len(unit)} calls as one: {first}"


def unit_of_each_mark(
    calls: Sequence[CollectiveCall], marks: int, matches: Sequence[Match | None] = ()
) -> tuple[Unit, ...] | None:
    """Return which calls each mark is of, or None where that cannot be told for certain.

    Calls and marks are both in the order of the capture. NCCL runs calls that are issued as one in
    one kernel, and calls of a group of one rank in none.

    Args:
        calls: What was recorded.
        marks: How many marks there are.
        matches: For each mark, what its kernel is; empty where marks are not of kernels.
    """
    communicating = [call for call in calls if call.group_size > 1]
    for candidates in (calls, communicating):
        for units in (_single(candidates), _joined(candidates)):
            if len(units) == marks and _fit(units, matches):
                return units
    return None


def _single(calls: Sequence[CollectiveCall]) -> tuple[Unit, ...]:
    return tuple((call,) for call in calls)


def _joined(calls: Sequence[CollectiveCall]) -> tuple[Unit, ...]:
    """Put neighbours together that were issued as one on one communicator."""
    numbered = enumerate(calls)
    runs = groupby(numbered, key=lambda n: (n[1].coalesced and n[1].group) or n[0])
    return tuple(tuple(call for _, call in run) for _, run in runs)


def _fit(units: Sequence[Unit], matches: Sequence[Match | None]) -> bool:
    return all(
        match is None or any(explained(match, call) for call in unit)
        for unit, match in zip(units, matches, strict=bool(matches))
    )
