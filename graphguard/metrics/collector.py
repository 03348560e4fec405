"""The counts of all processes of a run as Prometheus samples."""

from __future__ import annotations

import time
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Sequence

from prometheus_client import Metric
from prometheus_client.core import (
    CounterMetricFamily,
    GaugeMetricFamily,
    HistogramMetricFamily,
)

from graphguard.log import logger
from graphguard.metrics.samples import (
    CHECK_BUCKETS,
    CHECK_SHIFT,
    STEP_BUCKETS,
    STEP_SHIFT,
    Durations,
    ProcessSamples,
)

Labels = tuple[str, ...]
Read = Callable[[], Sequence[ProcessSamples]]

_EVENTS = {
    "divergences": ("graphguard_divergences", "Differences seen between ranks", ("role", "kind")),
    "votes": ("graphguard_votes", "Votes of the ranks on a step", ("outcome",)),
    "recaptures": ("graphguard_recaptures", "Graphs captured again", ("role",)),
    "degraded": (
        "graphguard_degraded_steps",
        "Steps that ran in another way than the engine had chosen",
        ("role", "reason"),
    ),
    "padding_violations": (
        "graphguard_padding_violations",
        "Batches whose padded slots broke an invariant",
        ("invariant",),
    ),
}


class RunCollector:
    """What Prometheus asks when it is scraped.

    Args:
        read: Returns the counts of each living process.
    """

    def __init__(self, read: Read) -> None:
        self._read = read
        self._told = False

    def describe(self) -> list[Metric]:
        """Return the families without samples: their names are taken."""
        return list(_families((), 0))

    def collect(self) -> list[Metric]:
        """Return all samples. The scrape of the program is not to fail by ours."""
        try:
            return list(_families(self._read(), time.monotonic_ns()))
        except Exception:  # noqa: BLE001
            if not self._told:
                self._told = True
                logger().warning("the metrics of graphguard cannot be read", exc_info=True)
            return []


def _families(processes: Sequence[ProcessSamples], now: int) -> Iterator[Metric]:
    yield _gauge(
        "graphguard_processes",
        "Processes whose counts are shown",
        (),
        {(): float(len(processes))},
    )
    yield _gauge(
        "graphguard_samples_age_seconds",
        "How long ago a process published its counts; about a second where all is well",
        ("rank",),
        _largest(((p.rank,), _seconds(now - p.published)) for p in processes),
    )
    yield _checks(processes)
    for event, (name, text, labels) in _EVENTS.items():
        family = CounterMetricFamily(name, text, labels=("rank", *labels))
        for key, count in _events(processes, event).items():
            family.add_metric(key, count)
        yield family
    yield _gauge(
        "graphguard_quarantined_graphs",
        "Graphs that are not launched any more",
        ("rank", "role"),
        {key: float(count) for key, count in _events(processes, "quarantined").items()},
    )
    yield from _steps(processes, now)
    yield _histogram(
        "graphguard_check_seconds",
        "How long a check took, of one in 256",
        ("rank",),
        _durations(((p.rank,), p.checks) for p in processes),
        (CHECK_SHIFT, CHECK_BUCKETS),
    )


def _checks(processes: Sequence[ProcessSamples]) -> Metric:
    family = CounterMetricFamily(
        "graphguard_checks",
        "Verdicts given on batches before their launch",
        labels=("rank", "role", "action", "reason"),
    )
    counts: Counter[Labels] = Counter()
    for process in processes:
        for role in process.roles:
            for action, reason, count in role.checks:
                counts[process.rank, role.role, action, reason] += count
    for key, count in counts.items():
        family.add_metric(key, count)
    return family


def _steps(processes: Sequence[ProcessSamples], now: int) -> Iterator[Metric]:
    labels = ("rank", "role")
    roles = [((p.rank, role.role), role) for p in processes for role in p.roles]
    in_flight: Counter[Labels] = Counter()
    for key, role in roles:
        in_flight[key] += role.in_flight
    yield _gauge(
        "graphguard_replays_in_flight",
        "Launches that have begun and not returned",
        labels,
        {key: float(count) for key, count in in_flight.items()},
    )
    yield _gauge(
        "graphguard_step_age_seconds",
        "How long ago the last step began",
        labels,
        _largest((key, _seconds(now - role.began)) for key, role in roles if role.began),
    )
    yield _histogram(
        "graphguard_step_seconds",
        "How long the launch of a graph took to return",
        labels,
        _durations((key, role.steps) for key, role in roles),
        (STEP_SHIFT, STEP_BUCKETS),
    )


def _events(processes: Sequence[ProcessSamples], event: str) -> Counter[Labels]:
    wanted = len(_EVENTS[event][2]) if event in _EVENTS else 1
    counts: Counter[Labels] = Counter()
    for process in processes:
        for name, labels, count in process.events:
            if name == event and len(labels) == wanted:
                key = (process.rank, *labels)
                counts[key] += count
    return counts


def _gauge(name: str, text: str, labels: Labels, values: dict[Labels, float]) -> Metric:
    family = GaugeMetricFamily(name, text, labels=labels)
    for key, value in values.items():
        family.add_metric(key, value)
    return family


def _histogram(
    name: str,
    text: str,
    labels: Labels,
    durations: dict[Labels, tuple[list[int], int]],
    powers: tuple[int, int],
) -> Metric:
    family = HistogramMetricFamily(name, text, labels=labels)
    shift, buckets = powers
    for key, (counts, nanoseconds) in durations.items():
        total, cumulative = 0, []
        for bucket in range(buckets):
            total += counts[bucket]
            last = bucket == buckets - 1
            limit = "+Inf" if last else repr((1 << (shift + bucket)) / 1e9)
            cumulative.append((limit, total))
        family.add_metric(key, cumulative, nanoseconds / 1e9)
    return family


def _durations(
    items: Iterable[tuple[Labels, Durations]],
) -> dict[Labels, tuple[list[int], int]]:
    """Add up what has the same labels; what is not as this version counts is left out."""
    found: dict[Labels, tuple[list[int], int]] = {}
    for key, durations in items:
        counts, nanoseconds = found.get(key, ([0] * len(durations.counts), 0))
        if any(durations.counts) and len(counts) == len(durations.counts):
            counts = [one + other for one, other in zip(counts, durations.counts, strict=True)]
            found[key] = counts, nanoseconds + durations.nanoseconds
    return found


def _largest(items: Iterable[tuple[Labels, float]]) -> dict[Labels, float]:
    found: dict[Labels, float] = {}
    for key, value in items:
        found[key] = max(value, found.get(key, 0.0))
    return found


def _seconds(nanoseconds: int) -> float:
    return max(0, nanoseconds) / 1e9
