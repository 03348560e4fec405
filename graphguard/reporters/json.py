"""Findings as JSON for programs. Fields may be added; what is there keeps its meaning."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from typing import Any

import msgspec

from graphguard.audit.findings import Coverage, Finding, Severity

SCHEMA = "graphguard.audit"
VERSION = 1


def render(findings: Sequence[Finding], coverage: Coverage) -> str:
    """Return every finding, a summary, and which ranks and graphs were looked at."""
    severities = Counter(finding.severity for finding in findings)
    return document(
        {
            "schema": SCHEMA,
            "version": VERSION,
            "summary": {
                "errors": severities[Severity.ERROR],
                "warnings": severities[Severity.WARNING],
                "rules": Counter(finding.rule for finding in findings),
                "collectives": coverage.collectives,
            },
            "ranks": coverage.ranks,
            "graphs": [
                {"graph": graph, "ranks": ranks} for graph, ranks in coverage.graphs.items()
            ],
            "files": coverage.files,
            "findings": findings,
        }
    )


def document(content: Any) -> str:  # noqa: ANN401 - whatever JSON can hold
    """Return a value as indented JSON."""
    return msgspec.json.format(msgspec.json.encode(content), indent=2).decode() + "\n"
