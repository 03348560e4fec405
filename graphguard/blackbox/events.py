"""The words of a record: what happened, and what goes with it.

The numbers are those of ``csrc/core/ring.h``. They are what a file holds, so none is used twice.
"""

from __future__ import annotations

from enum import IntEnum, IntFlag

NO_NAME = 0xFFFF
"""The role, the group or the peer of a record that has none."""

NOT_SET = 0xFF
"""The action, the reason or the phase of a record that has none."""


class Event(IntEnum):
    """What happened."""

    CLOCK = 1
    """The writer related its clock to the clock of the system."""
    CAPTURE = 2
    """A graph was captured."""
    CHECK = 3
    """The check of a step: its verdict, and what this rank would launch."""
    REPLAY_BEGIN = 4
    REPLAY_END = 5
    """The call that launches the graph has returned. The device may still be at it."""
    EAGER_BEGIN = 6
    EAGER_END = 7
    DIVERGENCE = 8
    """Two ranks differ. ``peer`` is the other one, ``detail`` a :class:`DivergenceKind`."""
    VOTE = 9
    NOTE = 10
    """A text, kept where other records have their role."""
    SEALED = 11
    """The graphs of a guard are complete."""
    CLOSED = 12
    """The process ended and said so."""

    def __str__(self) -> str:
        return self.name.lower()


class DivergenceKind(IntEnum):
    """What a rank saw of another one, or did about it."""

    DIFFERS = 1
    """Seen, and nothing done about it: the mode is observe."""
    ADOPTED = 2
    """This rank gave up its own choice for the one that another rank had made first."""
    REFUSED = 3
    """This rank could not serve what another rank had decided, and refused the step."""
    PEER_REFUSED = 4
    """Another rank did."""
    PEER_GONE = 5
    """The process of another rank has ended without a word."""
    LAPPED = 6
    """Another rank is so far ahead, or behind, that steps cannot be compared."""
    VOTE_TIMED_OUT = 7
    """A rank did not come to a vote within its bound."""
    NODES_DIFFER = 8
    """Ranks on two nodes launched different things."""
    CAPTURES_DIFFER = 9
    """Ranks captured different graphs."""
    DAMAGED = 10
    """The ledger holds what no rank can have written."""
    PADDING = 11
    """The padded slots of a step hold what breaks a kernel."""

    def __str__(self) -> str:
        return self.name.lower()


class Flag(IntFlag):
    """What else is true of a record."""

    ADOPTED = 1
    """The launch is what another rank decided."""
    ENFORCE = 2
    """The guard was enforcing."""
    VOTED = 4
    """The ranks voted on the launch."""
