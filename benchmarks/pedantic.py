"""pytest-benchmark's pedantic mode with a type: it ships none for it."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from pytest_benchmark.fixture import BenchmarkFixture


def pedantic(benchmark: BenchmarkFixture) -> Callable[..., Any]:
    """Return the function that measures a fixed number of rounds."""
    measure: Callable[..., Any] = benchmark.pedantic
    return measure
