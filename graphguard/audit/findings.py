"""What an audit found: a finding, and the words that it is told in."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from enum import Enum

import msgspec


class Severity(str, Enum):
    """Whether a finding breaks a rule, or is only a reason to look."""

    ERROR = "error"
    WARNING = "warning"

    def __str__(self) -> str:
        return self.value


class Side(msgspec.Struct, frozen=True):
    """What some ranks recorded where others recorded something else.

    Attributes:
        ranks: The ranks that agree on it.
        text: What they recorded, as text.
    """

    ranks: tuple[int, ...]
    text: str


class Finding(msgspec.Struct, frozen=True, kw_only=True):
    """One thing that is wrong, with the evidence for it.

    Attributes:
        rule: Which rule is broken, in kebab-case: ``collective-count``.
        severity: How bad it is.
        ranks: The ranks that are to blame. All of them where no majority tells who is.
        graph: The graph, as its key and batch; empty where it is about no single graph.
        position: Index, from 0, of the first collective call that differs, in the graph as the
            first of ``sides`` recorded it; None where it is about no single call.
        what: What was found, as one sentence.
        sides: What the ranks recorded, side by side.
        why: Why it matters.
        advice: What to do.
        evidence: The files that it was read from.
        repeats: How often the same was found where only the first is told.
    """

    rule: str
    severity: Severity
    ranks: tuple[int, ...]
    what: str
    why: str
    advice: str
    graph: str = ""
    position: int | None = None
    sides: tuple[Side, ...] = ()
    evidence: tuple[str, ...] = ()
    repeats: int = 1


class Coverage(msgspec.Struct, frozen=True):
    """What an audit looked at.

    Attributes:
        ranks: The ranks whose manifests were read.
        graphs: For each graph, as text, the ranks that recorded it.
        collectives: Collective calls of all graphs on all ranks.
        files: The manifests.
    """

    ranks: tuple[int, ...]
    graphs: dict[str, tuple[int, ...]]
    collectives: int
    files: tuple[str, ...]


def runs_text(runs: Iterable[tuple[int, int]]) -> str:
    """Return runs of ranks, first and last, as text: ``0-3, 6``."""
    return ", ".join(f"{first}" if first == last else f"{first}-{last}" for first, last in runs)


def ranks_text(ranks: Sequence[int]) -> str:
    """Return ascending ranks as a subject: ``rank 3`` or ``ranks 0-2, 5``."""
    runs: list[tuple[int, int]] = []
    for rank in ranks:
        if runs and runs[-1][1] == rank - 1:
            runs[-1] = (runs[-1][0], rank)
        else:
            runs.append((rank, rank))
    return f"{'rank' if len(ranks) == 1 else 'ranks'} {runs_text(runs)}"


def agree(subjects: Sequence[object], singular: str, plural: str) -> str:
    """Return the form of a verb that goes with one subject or several."""
    return singular if len(subjects) == 1 else plural
