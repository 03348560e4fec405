"""What was seen of ranks that do not do the same."""

from __future__ import annotations

import msgspec

from graphguard.blackbox.events import DivergenceKind


class Divergence(msgspec.Struct, frozen=True):
    """One difference between ranks, as one of them saw it.

    Attributes:
        kind: How they diverged.
        group: Name and global ranks of the group.
        step: Which launch of the group; 0 at captures.
        rank: The global rank that saw it.
        ranks: Global ranks on the other side. They are not to blame for that: only a majority says
            who differs, and then the text names them.
        text: What was seen, with both sides.
    """

    kind: DivergenceKind
    group: str
    step: int
    rank: int
    ranks: tuple[int, ...]
    text: str
