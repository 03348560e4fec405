"""One verdict of a stall, from those that several nodes have made."""

from __future__ import annotations

from collections.abc import Sequence
from enum import Enum

import msgspec

from graphguard.audit.findings import agree, ranks_text
from graphguard.watch.looking.bundles import ToldVerdict

_FIRST = (
    "process-died",
    "stopped",
    "worker-error",
    "ranks-diverged",
    "host-stuck",
    "device",
)
"""Classes that explain a stall, the one that explains most first. A node whose ranks only wait
for those of another one may call that by a later class."""


class Seen(str, Enum):
    """What a node sees."""

    STALL = "stall"
    NO_STALL = "no stall"
    NOT_KNOWN = "not known"

    def __str__(self) -> str:
        return self.value


class NodeView(msgspec.Struct, frozen=True):
    """What one node says.

    Attributes:
        node: What it is called: ``host-a (ranks 0-3)``.
        seen: Whether it sees a stall.
        steps: Its ranks, each with the last step of the group that it has published, as far as
            that is known.
        verdict: What it says of the stall.
        why: Why that is not known.
    """

    node: str
    seen: Seen
    steps: tuple[tuple[int, int], ...]
    verdict: ToldVerdict | None = None
    why: str = ""


class Joined(msgspec.Struct, frozen=True):
    """What all nodes together say.

    Attributes:
        stall_class: The class that explains most; empty if no node gives one.
        ranks: The ranks that are blamed.
        behind: Ranks that have come to an earlier step of the group than others.
        sentence: All of it in words.
    """

    stall_class: str
    ranks: tuple[int, ...]
    behind: tuple[int, ...]
    sentence: str


def joined(group: str, views: Sequence[NodeView]) -> Joined:
    """Join what the nodes say.

    A rank is blamed if a node that it is on blames it by the class that explains most. What the
    others say of their own waiting ranks does not count against that. If no node blames a rank,
    those are blamed that have not come to the step that the others are in.
    """
    stalled = [view for view in views if view.seen is Seen.STALL]
    by_class: dict[str, set[int]] = {}
    for view in stalled:
        if view.verdict is not None:
            by_class.setdefault(view.verdict.stall_class, set()).update(view.verdict.ranks)
    order = [*_FIRST, *sorted(by_class.keys() - set(_FIRST))]
    found = [name for name in order if name in by_class]
    # A class without ranks explains nothing that one with ranks does not explain better.
    stall_class = next((name for name in found if by_class[name]), found[0] if found else "")
    blamed = tuple(sorted(by_class.get(stall_class, ())))
    behind = _behind(stalled, views)
    sentence = _sentence(group, views, _blamed(stall_class, blamed, behind))
    return Joined(stall_class, blamed or tuple(behind), tuple(behind), sentence)


def _behind(stalled: Sequence[NodeView], views: Sequence[NodeView]) -> dict[int, int]:
    """Return the ranks that have not come to the step that others are stuck in, and their steps."""
    reached = max((step for view in stalled for _, step in view.steps), default=0)
    return {rank: step for view in views for rank, step in sorted(view.steps) if step < reached}


def _blamed(stall_class: str, blamed: Sequence[int], behind: dict[int, int]) -> str:
    told = []
    if blamed:
        told.append(f"{ranks_text(blamed)} {agree(blamed, 'is', 'are')} blamed ({stall_class})")
    if behind:
        steps = sorted(set(behind.values()))
        where = f"step {steps[0]}" if len(steps) == 1 else f"steps {steps[0]} to {steps[-1]}"
        ranks = sorted(behind)
        told.append(f"{ranks_text(ranks)} {agree(ranks, 'is', 'are')} behind, at {where}")
    return "; ".join(told) or "no rank is blamed"


def _sentence(group: str, views: Sequence[NodeView], blamed: str) -> str:
    parts = []
    for seen, words in ((Seen.STALL, "a stall"), (Seen.NO_STALL, "none")):
        names = [view.node for view in views if view.seen is seen]
        if names:
            parts.append(f"{', '.join(names)} {agree(names, 'sees', 'see')} {words}")
    parts += [
        f"of {view.node} nothing is known ({view.why})"
        for view in views
        if view.seen is Seen.NOT_KNOWN
    ]
    verdicts = [
        f"{view.node}: {view.verdict.stall_class}"
        for view in views
        if view.verdict is not None and view.verdict.stall_class
    ]
    if verdicts:
        parts.append(f"verdicts: {', '.join(verdicts)}")
    return f"{group}: {'; '.join([*parts, blamed])}"
