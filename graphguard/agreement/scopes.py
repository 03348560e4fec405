"""Which ranks are compared by which of their calls.

Ranks that seal graphs together may use other communicators besides: with tensor and data
parallelism, each of two tensor-parallel ranks has a data-parallel group of its own, and rightly
records other calls than the other. So a set of ranks is compared by the calls of the communicators
that hold all of the set: a *scope*. The scopes of a rank are all ranks of the group, those of them
that are in one of its communicators, and those that are in two of these, so that the order between
two communicators is compared, too. The audit does the same.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from itertools import combinations_with_replacement

from graphguard.audit.groups import Group
from graphguard.signature import POINT_TO_POINT, CollectiveCall, Signature

MAX_RANK_SETS = 64
"""Communicators of one rank, by their ranks, whose order is compared. The pairs are many."""

Scope = frozenset[int]


class Scopes:
    """The scopes of a group, from the communicators that any of its ranks uses.

    All ranks have to compute this from the same communicators.

    Args:
        ranks: The global ranks of the group.
        communicators: Those that each rank uses, as its calls name them.

    Attributes:
        everyone: The scope of all ranks of the group.
        unreadable: Communicators that do not say which ranks they have, or leave one out that
            uses them. Their calls are in no scope.
    """

    def __init__(self, ranks: Sequence[int], communicators: Mapping[int, Iterable[str]]) -> None:
        ascending = sorted(ranks)
        self.everyone: Scope = frozenset(ascending)
        self._members: dict[str, Scope] = {}
        unreadable = set()
        for rank, texts in communicators.items():
            for text in texts:
                if text not in self._members:
                    group = Group.parse(text)
                    self._members[text] = group.among(ascending) if group else frozenset()
                if rank not in self._members[text]:
                    unreadable.add(text)
        for text in unreadable:
            del self._members[text]
        self.unreadable = tuple(sorted(unreadable))
        self._of_rank: dict[int, tuple[Scope, ...]] = {}

    @property
    def trivial(self) -> bool:
        """Whether every call is in the scope of all ranks, so that digests compare as they are."""
        return not self.unreadable and set(self._members.values()) <= {self.everyone}

    def of(self, rank: int) -> tuple[Scope, ...]:
        """Return the scopes of a rank, largest first."""
        if rank not in self._of_rank:
            sets = {members for members in self._members.values() if rank in members}
            if len(sets) <= MAX_RANK_SETS:
                sets = {a & b for a, b in combinations_with_replacement(sets, 2)}
            self._of_rank[rank] = tuple(sorted({*sets, self.everyone}, key=_largest_first))
        return self._of_rank[rank]

    def all(self) -> tuple[Scope, ...]:
        """Return the scopes of all ranks, largest first."""
        scopes = {scope for rank in self.everyone for scope in self.of(rank) if len(scope) > 1}
        return tuple(sorted(scopes, key=_largest_first))

    def positions(self, scope: Scope, calls: Sequence[CollectiveCall]) -> tuple[int, ...]:
        """Return where the calls of a scope stand among the calls of a graph."""
        within = {text for text, members in self._members.items() if scope <= members}
        return tuple(
            position
            for position, call in enumerate(calls)
            if call.group in within and call.operation not in POINT_TO_POINT
        )

    def digest(self, scope: Scope, signature: Signature) -> str:
        """Return the shared digest that a graph has by the calls of a scope."""
        calls = signature.collectives
        within = tuple(calls[position] for position in self.positions(scope, calls))
        return Signature(signature.key, signature.batch, collectives=within).shared_digest


def _largest_first(scope: Scope) -> tuple[int, list[int]]:
    return -len(scope), sorted(scope)
