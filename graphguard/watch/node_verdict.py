"""One verdict of a stall, from those that several nodes have made."""

from __future__ import annotations

from collections.abc import Sequence
from enum import Enum

import msgspec

from graphguard.audit.findings import agree, ranks_text
from graphguard.watch.bundles import ToldVerdict

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
        step: The last step of the group that all its ranks have published; None if not known.
        verdict: What it says of the stall.
        why: Why that is not known.
    """

    node: str
    seen: Seen
    step: int | None
    verdict: ToldVerdict | None = None
    why: str = ""


class Joined(msgspec.Struct, frozen=True):
    """What all nodes together say.

    Attributes:
        stall_class: The class that explains most; empty if no node gives one.
        ranks: The ranks that are blamed.
        behind: Nodes that have come to an earlier step of the group than others.
        sentence: All of it in words.
    """

    stall_class: str
    ranks: tuple[int, ...]
    behind: tuple[str, ...]
    sentence: str


def joined(group: str, views: Sequence[NodeView]) -> Joined:
    """Join what the nodes say.

    A rank is blamed if a node that it is on blames it by the class that explains most. What the
    others say of their own waiting ranks does not count against that.
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
    ranks = tuple(sorted(by_class.get(stall_class, ())))
    behind = _behind(views)
    return Joined(stall_class, ranks, behind, _sentence(group, views, stall_class, ranks, behind))


def _behind(views: Sequence[NodeView]) -> tuple[str, ...]:
    steps = [view.step for view in views if view.step is not None]
    if len(set(steps)) < 2:
        return ()
    return tuple(view.node for view in views if view.step is not None and view.step < max(steps))


def _sentence(
    group: str,
    views: Sequence[NodeView],
    stall_class: str,
    ranks: tuple[int, ...],
    behind: tuple[str, ...],
) -> str:
    parts = []
    for seen, words in (
        (Seen.STALL, "a stall"),
        (Seen.NO_STALL, "none"),
    ):
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
    if behind:
        steps = {view.node: view.step for view in views}
        parts.append("behind: " + ", ".join(f"{node} at step {steps[node]}" for node in behind))
    if ranks:
        parts.append(f"{ranks_text(ranks)} {agree(ranks, 'is', 'are')} blamed ({stall_class})")
    else:
        parts.append("no rank is blamed")
    return f"{group}: {'; '.join(parts)}"
