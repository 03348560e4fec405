"""What the audit at start-up found."""

from __future__ import annotations

from enum import Enum

import msgspec


class Severity(str, Enum):
    """How bad it is.

    The first two are those of the audit of manifests; a note says what someone who looks into a
    hang would want to know, and asks for nothing.
    """

    ERROR = "error"
    WARNING = "warning"
    NOTE = "note"

    def __str__(self) -> str:
        return self.value


class StartupFinding(msgspec.Struct, frozen=True, kw_only=True):
    """One thing about an engine that is known to have done harm, or is worth knowing.

    Attributes:
        rule: Which rule found it, in kebab-case.
        severity: How bad it is.
        what: What was found, as one sentence.
        why: Why it matters.
        advice: What to do.
        evidence: What was read, and where.
        issues: Threads in which it did harm. That it does so here is not said by that.
    """

    rule: str
    severity: Severity
    what: str
    why: str
    advice: str
    evidence: tuple[str, ...] = ()
    issues: tuple[str, ...] = ()

    def __str__(self) -> str:
        known = f" ({', '.join(self.issues)})" if self.issues else ""
        return f"{self.severity}: {self.rule}: {self.what}; {self.why}{known}; {self.advice}"
