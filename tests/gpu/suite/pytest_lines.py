"""A plugin of pytest that tells what became of each test as lines of a stage.

What tests left as figures in the folder ``GRAPHGUARD_RESULTS`` is told at the end.
"""

from __future__ import annotations

import json
import math
import os
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.gpu.suite.lines import MAX_TEXT, Claim, Figure, NotRun, Spread, tell

MAX_DEPTH = 3


def pytest_runtest_logreport(report: pytest.TestReport) -> None:
    """Tell how a test ended; a failure of its fixtures counts as one of it."""
    name = report.nodeid.rpartition("/")[2]
    if report.skipped:
        tell(NotRun(name, _reason(report)))
    elif report.failed:
        what = name if report.when == "call" else f"{name} ({report.when})"
        tell(Claim(what, False, _last_line(report.longreprtext)))
    elif report.when == "call":
        tell(Claim(name, True))


def pytest_sessionfinish() -> None:
    """Tell the figures that tests have written."""
    folder = os.environ.get("GRAPHGUARD_RESULTS")
    for path in sorted(Path(folder).glob("*.json")) if folder else ():
        for figure in figures_of(path):
            tell(figure)


def figures_of(path: Path) -> list[Figure]:
    """Return the figures of a file as tests/gpu/test_cost.py writes it; none of any other."""
    try:
        content = json.loads(path.read_bytes())
    except (OSError, ValueError):
        return []
    figures = content.get("figures") if isinstance(content, dict) else None
    return list(_figures(path.stem, figures, 0))


def _figures(what: str, values: Any, depth: int) -> Iterator[Figure]:
    if not isinstance(values, dict) or depth > MAX_DEPTH:
        return
    middle = values.get("median")
    if isinstance(middle, int | float) and math.isfinite(middle):
        # Those files keep neither the values nor their number: the table shows the median alone.
        yield Figure(what[:MAX_TEXT], "µs", Spread(1, middle, middle, middle))
        return
    for name, nested in values.items():
        yield from _figures(f"{name}, {what}", nested, depth + 1)


def _reason(report: pytest.TestReport) -> str:
    longrepr = report.longrepr
    text = longrepr[2] if isinstance(longrepr, tuple) else str(longrepr)
    return text.removeprefix("Skipped: ")[:MAX_TEXT]


def _last_line(text: str) -> str:
    raised = [line for line in text.splitlines() if line.startswith("E ")]
    return (raised[0][2:].strip() if raised else text.strip()[-200:])[:MAX_TEXT]
