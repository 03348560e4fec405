"""How ranks find out that they meet each other, and not what an earlier life left behind.

A store may hold keys of an earlier process group of the same name: over the same file, or on a
server that outlived it. So every rank draws a number and posts it together with the numbers that
it has seen of the others. A rank whose post holds my number has read mine, so it lives now and its
own number is no left-over. When all of them do, the numbers of all ranks make a name that no
other life has, and all further keys begin with it.
"""

from __future__ import annotations

import secrets
from typing import Annotated

import msgspec
from msgspec import Meta

from graphguard.agreement.bounded_store import BoundedStore
from graphguard.agreement.waiting import Waiting
from graphguard.digest import digest, encode
from graphguard.errors import AgreementError
from graphguard.signature import Natural

MAX_RANKS = 65_536


class _Joined(msgspec.Struct, frozen=True, array_like=True):
    """What a rank posts: its own number, and those it has seen, 0 for none."""

    number: Natural
    seen: Annotated[tuple[Natural, ...], Meta(max_length=MAX_RANKS)]


class Joining:
    """This rank's part in the meeting of a group.

    Args:
        rank: This rank's rank in the group.
        num_ranks: Ranks in the group.
    """

    def __init__(self, rank: int, num_ranks: int) -> None:
        self._rank = rank
        self._seen = [0] * num_ranks
        self._seen[rank] = secrets.randbelow(2**63 - 1) + 1
        self._posted: list[int] = []
        self.missing = tuple(other for other in range(num_ranks) if other != rank)

    def join(self, store: BoundedStore, waiting: Waiting, told: str) -> str | None:
        """Wait for all ranks and return the name of this life, or None if some do not come.

        ``missing`` are the ranks that have not come yet, in the group. It can be called again
        and goes on where it was.

        Raises:
            AgreementError: If the store fails, or holds what no rank would post.
        """
        while True:
            self.missing = tuple(other for other in self.missing if not self._meets(store, other))
            if self._posted != self._seen:
                self._posted = list(self._seen)
                own = _Joined(self._seen[self._rank], tuple(self._seen))
                store.set(_key(self._rank), msgspec.msgpack.encode(own))
            if not self.missing:
                return digest([encode(tuple(self._seen))])[:16]
            if waiting.over:
                return None
            waiting.pause(lambda: told)

    def _meets(self, store: BoundedStore, other: int) -> bool:
        """Note the number of a rank; return whether that rank has noted ours."""
        if not store.check([_key(other)]):
            return False
        try:
            joined = msgspec.msgpack.decode(store.get(_key(other)), type=_Joined)
        except msgspec.DecodeError as error:
            raise AgreementError(
                f"what rank {other} of the group posted cannot be read: {error}",
                hint="do all ranks run the same version of graphguard?",
            ) from error
        if len(joined.seen) != len(self._seen):
            return False
        self._seen[other] = joined.number
        return joined.seen[self._rank] == self._seen[self._rank]


def _key(rank: int) -> str:
    return f"join/{rank}"
