"""Measuring candidates in turn, and saying how the values lie."""

from __future__ import annotations

import statistics
import time
from collections.abc import Callable, Mapping, Sequence

from tests.gpu.suite.lines import Figure, Spread, tell

Candidate = Callable[[], object]


def spread_of(values: Sequence[float]) -> Spread:
    """Return how values lie.

    Raises:
        ValueError: If there are none.
    """
    if not values:
        raise ValueError("nothing was measured")
    ordered = sorted(values)
    return Spread(
        n=len(ordered),
        median=statistics.median(ordered),
        p10=_quantile(ordered, 0.10),
        p90=_quantile(ordered, 0.90),
        p99=_quantile(ordered, 0.99) if len(ordered) >= 100 else None,
        least=ordered[0],
    )


def _quantile(ordered: Sequence[float], part: float) -> float:
    """Interpolate between neighbours, as numpy does by default."""
    place = part * (len(ordered) - 1)
    below = int(place)
    above = min(below + 1, len(ordered) - 1)
    if ordered[below] == ordered[above]:
        return ordered[below]
    return ordered[below] + (ordered[above] - ordered[below]) * (place - below)


def in_turn(
    candidates: Mapping[str, Candidate],
    rounds: int,
    measure: Callable[[Candidate], float],
    warm_up: int = 10,
) -> dict[str, list[float]]:
    """Measure each candidate once a round; each comes first, second … equally often."""
    names = list(candidates)
    values: dict[str, list[float]] = {name: [] for name in names}
    for number in range(-warm_up, rounds):
        for place in range(len(names)):
            name = names[(number + place) % len(names)]
            value = measure(candidates[name])
            if number >= 0:
                values[name].append(value)
    return values


def tell_figures(
    values: Mapping[str, Sequence[float]], unit: str, baseline: str = "", about: str = ""
) -> None:
    """Tell a figure for each candidate, with its ratio to the baseline round by round.

    Args:
        values: By candidate, one for each round.
        unit: Of the values.
        baseline: The candidate that the others are compared with; empty for none.
        about: What all of them have in common.
    """
    for name, measured in values.items():
        ratio = None
        if baseline and name != baseline and all(values[baseline]):
            pairs = zip(measured, values[baseline], strict=True)
            ratio = spread_of([own / base for own, base in pairs])
        tell(
            Figure(
                f"{name}, {about}" if about else name,
                unit,
                spread_of(measured),
                ratio,
                (f"{baseline}, {about}" if about else baseline) if ratio else "",
            )
        )


def tell_value(what: str, unit: str, value: float) -> None:
    """Tell something that was measured once."""
    tell(Figure(what, unit, spread_of([value])))


def host_microseconds(candidate: Candidate) -> float:
    """Return how long a call takes on the host."""
    began = time.perf_counter_ns()
    candidate()
    return (time.perf_counter_ns() - began) / 1e3
