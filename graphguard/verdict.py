"""What the check decides about a batch: an action and the reason for it.

The numbers of these enums are those of ``csrc/core/verdict.h``.
"""

from __future__ import annotations

from enum import IntEnum

import msgspec


class Phase(IntEnum):
    """Which part of its life the requests of a batch are in."""

    DECODE = 0
    """Every request is past its prompt."""
    PREFILL = 1
    """Every request is still in its prompt."""
    MIXED = 2
    """Some are, some are not."""

    def __str__(self) -> str:
        return self.name.lower()


class Action(IntEnum):
    """What to do with a batch."""

    REPLAY = 0
    PAD = 1
    RECAPTURE = 2
    EAGER = 3
    ABORT = 4

    def __str__(self) -> str:
        return self.name.lower()


class Reason(IntEnum):
    """Why. Ordered from the best fit to the farthest miss.

    The reason given for a family of graphs is the smallest one that any of its graphs gives.
    """

    EXACT = 0
    PADDED = 1
    WRONG_PHASE = 2
    NOT_DECODE = 3
    TOO_MANY_REQUESTS = 4
    QUERY_LENGTH = 5
    NOT_UNIFORM = 6
    TOO_MANY_TOKENS = 7
    NO_GRAPH = 8
    INPUT_COUNT = 9
    INPUT_DTYPE = 10
    INPUT_SHAPE = 11
    INPUT_DEVICE = 12
    INPUT_ADDRESS = 13
    QUARANTINED = 14
    ADOPTED = 15

    def __str__(self) -> str:
        return self.name.lower()

    @property
    def explanation(self) -> str:
        """The reason as half a sentence, for messages."""
        return _EXPLANATIONS[self]

    @property
    def rank_local(self) -> bool:
        """Whether one rank may see this while its peers do not.

        Everything else follows from what all ranks share: the batch descriptor, the recorded
        graphs, what was announced. So all ranks reach it alike.
        """
        return Reason.INPUT_COUNT <= self <= Reason.INPUT_ADDRESS


_EXPLANATIONS = {
    Reason.EXACT: "a graph was recorded for exactly this batch",
    Reason.PADDED: "the batch fits a larger graph with padded slots",
    Reason.WRONG_PHASE: "the only graphs of this shape were recorded for another phase",
    Reason.NOT_DECODE: "only a decode batch may be padded, and no graph has exactly this shape",
    Reason.TOO_MANY_REQUESTS: "the batch has more requests than any graph of its query length",
    Reason.QUERY_LENGTH: "no graph was recorded for this many query tokens a request",
    Reason.NOT_UNIFORM: "the requests differ in query length and no graph has exactly this shape",
    Reason.TOO_MANY_TOKENS: "the batch has more tokens than any graph",
    Reason.NO_GRAPH: "no graph was recorded under this key",
    Reason.INPUT_COUNT: "another number of static tensors than was recorded",
    Reason.INPUT_DTYPE: "a static tensor has another dtype than was recorded",
    Reason.INPUT_SHAPE: "a static tensor has another shape than was recorded",
    Reason.INPUT_DEVICE: "a static tensor is on another device than was recorded",
    Reason.INPUT_ADDRESS: "a static tensor has moved since it was recorded",
    Reason.QUARANTINED: "the graph is quarantined",
    Reason.ADOPTED: "another rank decided so",
}


class Verdict(msgspec.Struct, frozen=True):
    """What to do with one batch, and why.

    Attributes:
        action: What to do.
        reason: Why.
        graph: The id of the graph to use, or None where no graph is used.
    """

    action: Action
    reason: Reason
    graph: int | None = None

    def __str__(self) -> str:
        return f"{self.action} ({self.reason})"


def make_verdict(action: int, reason: int, graph: int | None) -> Verdict:
    """Build a verdict from the numbers of the native core."""
    return Verdict(Action(action), Reason(reason), graph)
