"""A meeting of the ranks of a group: each brings something, and each gets what all brought.

Whether a meeting came about is decided once for all ranks, by a key that only the first to write
it determines: either every rank gets everything, or every rank gets the same error, also one that
comes when the others have given up.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from typing import Annotated, TypeVar

import msgspec
from msgspec import Meta

from graphguard.agreement.bounded_store import BoundedStore
from graphguard.agreement.joining import MAX_RANKS, Joining
from graphguard.agreement.store import Store, members_of, store_of
from graphguard.agreement.waiting import Waiting
from graphguard.audit.findings import agree, ranks_text
from graphguard.audit.groups import Group
from graphguard.errors import AgreementError, RankMissing
from graphguard.signature import Name, Natural

_HINT = (
    "look at what these ranks do: do they still capture, have they failed, or do they capture less "
    "often than the others? GRAPHGUARD_AGREE_SECONDS says how long ranks wait"
)
_VERSION_HINT = "do all ranks run the same version of graphguard?"

_Decoded = TypeVar("_Decoded")
_Ranks = Annotated[tuple[Natural, ...], Meta(max_length=MAX_RANKS)]


class _Outcome(msgspec.Struct, frozen=True):
    """How a meeting ended: without these ranks of the group."""

    missing: _Ranks


class _Place(msgspec.Struct, frozen=True):
    """Where a rank was last."""

    topic: Name
    round: Natural
    note: Name

    def __str__(self) -> str:
        return f"{self.topic!r}, number {self.round}" + (f" ({self.note})" if self.note else "")


class Rendezvous:
    """The meetings of a group, as one of its ranks takes part in them.

    A group needs only one of these in a process. It belongs to one thread at a time.

    Args:
        store: Shared by all ranks of the group.
        rank: This rank's rank in the group.
        num_ranks: Ranks in the group.
        name: What all ranks of the group call it.
        ranks: The global ranks of the group. Without them they are read from its name, and are 0,
            1, 2 … where that does not say them.

    Attributes:
        rank: This rank's rank in the group.
        ranks: The global ranks.
        name: The name of the group.
    """

    def __init__(
        self, store: Store, rank: int, num_ranks: int, name: str, *, ranks: Sequence[int] = ()
    ) -> None:
        self.rank = rank
        self.ranks = tuple(ranks) or _ranks_in(name, num_ranks)
        self.name = name
        self._store = store
        self._joining = Joining(rank, num_ranks)
        self._life: str | None = None
        self._rounds: Counter[str] = Counter()

    @classmethod
    def of_group(cls, group: object) -> Rendezvous:
        """Return the rendezvous of a process group of torch.distributed.

        Raises:
            ConfigurationError: If this process is not a member, or torch does not tell the store.
        """
        members = members_of(group)
        store = store_of(group)
        return cls(store, members.rank, len(members.ranks), members.name, ranks=members.ranks)

    @property
    def global_rank(self) -> int:
        """This process's global rank."""
        return self.ranks[self.rank]

    def exchange(
        self, topic: str, payload: bytes, seconds: float, *, note: str = ""
    ) -> list[bytes]:
        """Bring a payload, wait for all ranks, and return what each of them brought.

        Every rank has to call this as often and in the same order as the others. Calls of one
        topic are counted, so that it can be used again.

        Args:
            topic: What the meeting is about; the same text on all ranks.
            payload: At most 8 MiB.
            seconds: How long to wait.
            note: What this rank does, told to the others when it does not come next time.

        Returns:
            The payloads, in the order of the group.

        Raises:
            RankMissing: On every rank, if some did not come in time.
            AgreementError: If the store fails, or a payload is too large.
        """
        if len(self.ranks) == 1:
            return [payload]
        waiting = Waiting(seconds, f"rank {self.global_rank}: {topic!r} in {self.name}")
        with BoundedStore(self._store, waiting.deadline, self._who) as store:
            life = self._join(store, waiting)
            self._rounds[topic] += 1
            here = _Place(topic, self._rounds[topic], note[:256])
            meeting = f"{life}/{topic}/{here.round}"
            store.set(f"{life}/at/{self.rank}", msgspec.json.encode(here))
            store.set(f"{meeting}/{self.rank}", payload)
            if missing := self._missing(store, meeting, waiting):
                raise self._error(store, life, here, missing, waiting)
            return [
                payload if rank == self.rank else store.get(f"{meeting}/{rank}")
                for rank in range(len(self.ranks))
            ]

    def _join(self, store: BoundedStore, waiting: Waiting) -> str:
        if self._life is not None:
            return self._life
        told = f"not all ranks of {self.name} have joined"
        self._life = self._joining.join(store, waiting, told)
        if self._life is None:
            missing = self._globally(self._joining.missing)
            raise RankMissing(
                f"{self._who}: {ranks_text(missing)} {agree(missing, 'has', 'have')} not joined "
                f"within {waiting.seconds:g} s",
                missing=missing,
                hint=_HINT,
            )
        return self._life

    def _missing(self, store: BoundedStore, meeting: str, waiting: Waiting) -> tuple[int, ...]:
        """Wait until it is decided how a meeting ends; return the ranks that it ends without."""
        posts = [f"{meeting}/{rank}" for rank in range(len(self.ranks))]
        outcome = f"{meeting}/outcome"

        def absent() -> tuple[int, ...]:
            return tuple(rank for rank, post in enumerate(posts) if not store.check([post]))

        def told() -> str:
            return f"{ranks_text(self._globally(absent()))} did not come yet"

        while not store.check([outcome]):
            complete = store.check(posts)
            if complete or waiting.over:
                missing = () if complete else absent()
                proposal = msgspec.json.encode(_Outcome(missing)).decode()
                return self._decided(store.decide(outcome, proposal))
            waiting.pause(told)
        return self._decided(store.get(outcome))

    def _decided(self, outcome: bytes) -> tuple[int, ...]:
        missing = self._decoded(outcome, _Outcome).missing
        if any(rank >= len(self.ranks) for rank in missing):
            raise AgreementError(
                f"{self._who}: a meeting ended without rank {max(missing)} of the group, which "
                "does not exist",
                hint=_VERSION_HINT,
            )
        return missing

    def _error(
        self,
        store: BoundedStore,
        life: str,
        here: _Place,
        missing: tuple[int, ...],
        waiting: Waiting,
    ) -> RankMissing:
        ranks = self._globally(missing)
        late = " (this rank came when the others had given up)" if self.rank in missing else ""
        places = "; ".join(self._last_place(store, life, rank) for rank in missing)
        return RankMissing(
            f"{self._who}: {ranks_text(ranks)} did not come to {here} in time{late}; "
            f"this rank would wait {waiting.seconds:g} s; {places}",
            missing=ranks,
            hint=_HINT,
        )

    def _last_place(self, store: BoundedStore, life: str, rank: int) -> str:
        key = f"{life}/at/{rank}"
        if not store.check([key]):
            return f"rank {self.ranks[rank]} has posted nothing but that it is there"
        place = self._decoded(store.get(key), _Place)
        return f"rank {self.ranks[rank]} came last to {place}"

    def _decoded(self, value: bytes, kind: type[_Decoded]) -> _Decoded:
        try:
            return msgspec.json.decode(value, type=kind)
        except msgspec.DecodeError as error:
            raise AgreementError(
                f"{self._who}: what another rank posted cannot be read: {error}",
                hint=_VERSION_HINT,
            ) from error

    def _globally(self, ranks: Sequence[int]) -> tuple[int, ...]:
        return tuple(sorted(self.ranks[rank] for rank in ranks))

    @property
    def _who(self) -> str:
        return f"rank {self.global_rank} of {self.name}"


def _ranks_in(name: str, num_ranks: int) -> tuple[int, ...]:
    group = Group.parse(name)
    found = [group.rank_at(index) for index in range(num_ranks)] if group else []
    ranks = tuple(rank for rank in found if rank is not None)
    return ranks if len(ranks) == num_ranks else tuple(range(num_ranks))
