"""What was seen of ranks that do not do the same."""

from __future__ import annotations

from enum import IntEnum

import msgspec


class DivergenceKind(IntEnum):
    """How ranks diverged. The numbers are those of ``detail`` in the black box."""

    DIFFERS = 1
    """Seen, and nothing done about it: the mode is observe."""
    ADOPTED = 2
    """This rank gave up its own choice for the one that another rank had made first."""
    REFUSED = 3
    """This rank could not serve what another rank had decided, and refused the step."""
    PEER_REFUSED = 4
    """Another rank did."""
    PEER_GONE = 5
    """The process of another rank has ended."""
    LAPPED = 6
    """Another rank is so far ahead, or behind, that steps cannot be compared."""
    TIMED_OUT = 7
    """A rank did not come to a vote within its bound."""
    NODES_DIFFER = 8
    """Ranks on two nodes launched different things."""
    CAPTURES_DIFFER = 9
    """Ranks captured different graphs."""
    DAMAGED = 10
    """The ledger holds what no rank can have written."""

    def __str__(self) -> str:
        return self.name.lower().replace("_", "-")


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
