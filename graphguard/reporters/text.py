"""Findings as text for people: grouped by rule, the first few of each in full."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

from graphguard.audit.findings import Coverage, Finding, Severity, Side, agree, ranks_text
from graphguard.printable import printable

MAX_SHOWN = 3
"""Findings of one rule, and graphs of one finding, that are shown."""

MAX_TEXT = 400
"""Characters of a line that are shown. A communicator of many ranks has a long name."""

_Told = tuple[str, int | None, tuple[Side, ...], int]


def render(seen: Sequence[Finding], coverage: Coverage) -> str:
    """Return findings as text that ends with a summary."""
    return "\n".join([*findings(seen), _summary(seen, coverage)]) + "\n"


def findings(seen: Sequence[Finding]) -> list[str]:
    """Return findings as lines, those that break a rule first."""
    by_rule: dict[str, list[Finding]] = {}
    for finding in sorted(seen, key=lambda finding: finding.severity is not Severity.ERROR):
        by_rule.setdefault(finding.rule, []).append(finding)
    return [line for group in by_rule.values() for line in _rule(group)]


def _rule(findings: Sequence[Finding]) -> Iterator[str]:
    first = findings[0]
    yield f"{first.severity}: {first.rule}"
    alike: dict[_Told, list[Finding]] = {}
    for finding in findings:
        told = (finding.what, finding.position, finding.sides, finding.repeats)
        alike.setdefault(told, []).append(finding)
    groups = list(alike.values())
    for group in groups[:MAX_SHOWN]:
        yield from _alike(group)
    if rest := groups[MAX_SHOWN:]:
        yield f"  and {sum(map(len, rest))} more (--json lists all)"
    yield f"  why: {first.why}"
    yield f"  do:  {first.advice}"
    yield ""


def _alike(findings: Sequence[Finding]) -> Iterator[str]:
    """Tell once what was found alike on several graphs."""
    first = findings[0]
    repeats = f" (the first of {first.repeats} places)" if first.repeats > 1 else ""
    yield _line(f"  {first.what}{repeats}")
    graphs = [finding.graph for finding in findings if finding.graph]
    if graphs:
        more = f" and {len(graphs) - MAX_SHOWN} more" if len(graphs) > MAX_SHOWN else ""
        noun = agree(graphs, "graph", "graphs")
        yield _line(f"    {noun}: {', '.join(graphs[:MAX_SHOWN])}{more}")
    if first.position is not None:
        yield f"    first at call {first.position} of the graph, counted from 0"
    for side in first.sides:
        yield _line(f"    {ranks_text(side.ranks)}: {side.text}")
    files = list(dict.fromkeys(file for finding in findings for file in finding.evidence))
    if files:
        last = f" to {files[-1]}" if len(files) > 1 else ""
        yield _line(f"    {agree(files, 'file', 'files')}: {files[0]}{last}")


def _summary(findings: Sequence[Finding], coverage: Coverage) -> str:
    looked_at = (
        f"{_counted(len(coverage.ranks), 'rank')}, {_counted(len(coverage.graphs), 'graph')}, "
        f"{_counted(coverage.collectives, 'collective call')}"
    )
    if not findings:
        return f"{looked_at}: no difference found"
    errors = sum(finding.severity is Severity.ERROR for finding in findings)
    warnings = len(findings) - errors
    return f"{looked_at}: {_counted(errors, 'error')}, {_counted(warnings, 'warning')}"


def _counted(number: int, noun: str) -> str:
    return f"{number:,} {noun}{'' if number == 1 else 's'}"


def _line(text: str) -> str:
    text = printable(text)
    return text if len(text) <= MAX_TEXT else text[: MAX_TEXT - 3] + "..."
