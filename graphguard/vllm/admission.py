"""How many requests vLLM's scheduler may admit to its steps."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

_LIMITS = ("max_num_running_reqs", "max_num_active_reqs")
_BOUND = "prefill_capacity_bound"


def admission_limits(scheduler: Any) -> dict[str, int]:  # noqa: ANN401 - vLLM's own
    """Return the limits that a scheduler of this version has, by name."""
    return {name: getattr(scheduler, name) for name in _LIMITS if hasattr(scheduler, name)}


@contextmanager
def nothing_admitted(scheduler: Any) -> Iterator[None]:  # noqa: ANN401 - vLLM's own
    """Let a scheduler admit no request inside.

    vLLM admits nothing while as many run as may run. It takes requests that it did not admit for a
    sign that there was no room, which is undone afterwards.
    """
    limits = admission_limits(scheduler)
    kept: dict[str, Any] = dict(limits)
    if hasattr(scheduler, _BOUND):
        kept[_BOUND] = getattr(scheduler, _BOUND)
    for name in limits:
        setattr(scheduler, name, len(scheduler.running))
    try:
        yield
    finally:
        for name, value in kept.items():
            setattr(scheduler, name, value)
