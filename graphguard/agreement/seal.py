"""Agreement at capture: whether the ranks of a group captured the same graphs.

Ranks compare digests first, which is all where they are equal. Where they are not, a second
meeting compares them by the communicators that ranks share, if there are several, and a third one
brings the calls of the first graphs that differ. Every rank has the posts of all ranks and computes
the same from them, so all ranks come to the same meetings and find the same differences.
"""

from __future__ import annotations

import time
from collections.abc import Mapping, Sequence
from types import MappingProxyType
from typing import Annotated

import msgspec
from msgspec import Meta

from graphguard.agreement import differences as compared
from graphguard.agreement.calls import MAX_COMPARED_GRAPHS, CallComparison, PostedCalls, unlocated
from graphguard.agreement.calls import posted as posted_calls
from graphguard.agreement.differences import Difference, Parting
from graphguard.agreement.rendezvous import Rendezvous
from graphguard.agreement.scopes import MAX_RANK_SETS, Scope, Scopes
from graphguard.agreement.sealed import (
    MAX_GRAPHS,
    Digest,
    Post,
    Sealed,
    decode,
    encode,
    graph_name,
    graph_text,
    sealed,
)
from graphguard.environment import Mode
from graphguard.errors import AgreementError
from graphguard.log import logger
from graphguard.signature import GraphKey, Name, Signature

MAX_TOLD = 16
"""Differences that an error lists."""

_NOTHING_FAILED: Mapping[int, str] = MappingProxyType({})
_MAX_SCOPES = MAX_RANK_SETS * (MAX_RANK_SETS + 1) // 2 + 1

ByScope = dict[str, dict[Scope, dict[int, str]]]
"""For each graph that differs, the digests of the ranks in each scope."""


class SealOutcome(msgspec.Struct, frozen=True, kw_only=True):
    """What came out when the ranks of a group compared what they captured.

    Attributes:
        key: The family of graphs, as this rank calls it.
        group: What the ranks call their group.
        rank: This process's global rank.
        differences: What the ranks do not have in common; the same on every rank.
        failures: What failed during the captures, by global rank.
        digest_names: What the digests of all ranks stand for: ``target/full 16x2``.
        group_digests: For each shared digest of this rank's graphs, a digest that the other ranks
            of the group have too, if there is no difference. It is the same digest unless the
            ranks rightly use different communicators besides those of the whole group.
        unreadable: Communicators that do not say which ranks they have, while some digests are
            not equal; calls on them were not compared.
        seconds: How long it took, waiting included.
    """

    key: str
    group: str
    rank: int
    differences: tuple[Difference, ...]
    failures: dict[int, str]
    digest_names: dict[str, str]
    group_digests: dict[str, str]
    unreadable: tuple[str, ...]
    seconds: float

    @property
    def agreed(self) -> bool:
        """Whether all ranks captured the same, and none failed."""
        return not self.differences and not self.failures


class _ScopeDigests(msgspec.Struct, frozen=True, array_like=True):
    """The digests of a graph by the scopes of the rank that posts them, in their order."""

    batch: Name
    digests: Annotated[tuple[Digest, ...], Meta(max_length=_MAX_SCOPES)]


_ScopePost = Annotated[tuple[_ScopeDigests, ...], Meta(max_length=MAX_GRAPHS)]


def seal(
    rendezvous: Rendezvous,
    key: GraphKey,
    signatures: Sequence[Signature],
    *,
    mode: Mode,
    failure: str = "",
    seconds: float,
) -> SealOutcome:
    """Compare what the ranks of a group captured. Every rank of the group has to call this.

    Args:
        rendezvous: Of the group. Its ranks seal their families of graphs in the same order.
        key: The family of graphs.
        signatures: What this rank captured, in order.
        mode: The mode of the guard.
        failure: What failed while this rank captured; the others learn of it.
        seconds: How long to wait for the other ranks, in each of at most three meetings.

    Returns:
        What differs. It is told, not raised: see :func:`difference_error`.

    Raises:
        RankMissing: On every rank, if some do not come.
        AgreementError: If the store fails, or a rank posts what cannot be read.
    """
    began = time.monotonic()
    own = sealed(str(key), signatures, str(mode), failure)
    posts = decode(
        rendezvous.exchange("seal", encode(own), seconds, note=str(key)), Sealed, rendezvous.ranks
    )
    scopes = Scopes(rendezvous.ranks, {rank: post.communicators for rank, post in posts.items()})
    found = [*compared.modes(posts), *compared.keys(posts)]
    by_scope: ByScope = {}
    if len({post.key for post in posts.values()}) == 1:
        found += [*compared.captured(posts), *compared.orders(posts)]
        meetings = _Meetings(rendezvous, scopes, str(key), signatures, seconds)
        by_scope = meetings.digests(posts)
        found += meetings.differences(str(key), by_scope)
    outcome = SealOutcome(
        key=str(key),
        group=rendezvous.name,
        rank=rendezvous.global_rank,
        differences=tuple(found),
        failures={rank: post.failure for rank, post in posts.items() if post.failure},
        digest_names=_names(posts, by_scope),
        group_digests=_group_digests(own, rendezvous.global_rank, by_scope, scopes),
        unreadable=scopes.unreadable if by_scope else (),
        seconds=time.monotonic() - began,
    )
    if outcome.agreed:
        logger().info("%s", _agreed(outcome, own, len(rendezvous.ranks)))
    return outcome


def difference_error(
    differences: Sequence[Difference],
    key: GraphKey,
    rank: int,
    failures: Mapping[int, str] = _NOTHING_FAILED,
) -> AgreementError:
    """Return the error that says in what the ranks of a group differ.

    Args:
        differences: What differs, from an outcome.
        key: The family of graphs.
        rank: This process's global rank.
        failures: What failed on which rank, from an outcome.
    """
    told = [f"rank {other} could not capture: {failures[other]}" for other in failures]
    told += map(str, differences)
    if len(told) > MAX_TOLD:
        told[MAX_TOLD:] = [f"and {len(told) - MAX_TOLD} more"]
    lines = "".join(f"\n  - {line}" for line in told)
    return AgreementError(
        f"rank {rank}: the ranks did not capture the same for {key}:{lines}",
        hint="make every rank take the same way through the captured code: look for a branch on "
        "the rank, on free memory or on a local setting",
    )


class _Meetings:
    """The meetings that follow where shared digests are not equal."""

    def __init__(
        self,
        rendezvous: Rendezvous,
        scopes: Scopes,
        key: str,
        signatures: Sequence[Signature],
        seconds: float,
    ) -> None:
        self._rendezvous = rendezvous
        self._scopes = scopes
        self._signatures = {graph_text(key, signature): signature for signature in signatures}
        self._seconds = seconds

    def digests(self, posts: Mapping[int, Sealed]) -> ByScope:
        """Return the digests by scope of the graphs whose shared digests are not all equal."""
        by_batch: dict[str, dict[int, str]] = {}
        for rank, post in posts.items():
            for batch, digest in post.digests.items():
                by_batch.setdefault(batch, {})[rank] = digest
        differing = {batch: d for batch, d in by_batch.items() if len(set(d.values())) > 1}
        if not differing or self._scopes.trivial:
            everyone = self._scopes.everyone
            return {batch: {everyone: digests} for batch, digests in differing.items()}
        rank = self._rendezvous.global_rank
        own = tuple(
            _ScopeDigests(
                batch,
                tuple(
                    self._scopes.digest(scope, self._signatures[batch])
                    for scope in self._scopes.of(rank)
                ),
            )
            for batch in differing
            if batch in self._signatures
        )
        scope_posts: dict[int, tuple[_ScopeDigests, ...]] = self._exchange(
            "seal: scopes", encode(own), _ScopePost
        )
        return self._by_scope(differing, scope_posts)

    def _by_scope(
        self, differing: Mapping[str, object], posts: Mapping[int, tuple[_ScopeDigests, ...]]
    ) -> ByScope:
        by_scope: ByScope = {
            batch: {scope: {} for scope in self._scopes.all()} for batch in differing
        }
        for rank, graphs in posts.items():
            for graph in graphs:
                if graph.batch in by_scope:
                    for scope, digest in zip(self._scopes.of(rank), graph.digests, strict=False):
                        if len(scope) > 1:
                            by_scope[graph.batch][scope][rank] = digest
        return by_scope

    def differences(self, key: str, by_scope: ByScope) -> list[Difference]:
        """Return the differences in collective calls, with the calls for the first graphs."""
        parted = {
            batch: {scope: d for scope, d in scopes.items() if len(set(d.values())) > 1}
            for batch, scopes in by_scope.items()
        }
        parted = {batch: scopes for batch, scopes in parted.items() if scopes}
        if not parted:
            return []
        looked_at = list(parted)[:MAX_COMPARED_GRAPHS]
        own = posted_calls({b: self._signatures[b] for b in looked_at if b in self._signatures})
        posts: dict[int, PostedCalls] = self._exchange("seal: calls", own, PostedCalls)
        comparison = CallComparison(key, self._scopes, posts)
        found: list[Difference] = []
        for batch, scopes in parted.items():
            if batch in looked_at:
                found += comparison.differences(batch, scopes)
            else:
                largest = next(iter(scopes.values()))
                found += unlocated(graph_name(key, batch), Parting(largest))
        return found

    def _exchange(self, topic: str, own: bytes, kind: type[Post]) -> dict[int, Post]:
        posts = self._rendezvous.exchange(topic, own, self._seconds)
        return decode(posts, kind, self._rendezvous.ranks)


def _names(posts: Mapping[int, Sealed], by_scope: ByScope) -> dict[str, str]:
    """Return what digests stand for, those by scope included."""
    names: dict[str, str] = {}
    for post in posts.values():
        for batch, digest in post.digests.items():
            names[digest] = graph_name(post.key, batch)
    key = next(iter(posts.values())).key
    for batch, scopes in by_scope.items():
        for digests in scopes.values():
            names.update((digest, graph_name(key, batch)) for digest in digests.values())
    return names


def _group_digests(own: Sealed, rank: int, by_scope: ByScope, scopes: Scopes) -> dict[str, str]:
    return {
        digest: by_scope.get(batch, {}).get(scopes.everyone, {}).get(rank, digest)
        for batch, digest in own.digests.items()
    }


def _agreed(outcome: SealOutcome, own: Sealed, num_ranks: int) -> str:
    calls = sum(graph.calls for graph in own.graphs)
    left_out = (
        f"; calls on {', '.join(outcome.unreadable)} were not compared, since it is not known "
        "which ranks are in there"
        if outcome.unreadable
        else ""
    )
    return (
        f"rank {outcome.rank}: the {num_ranks} ranks of {outcome.group} agree on {outcome.key}: "
        f"{len(own.graphs)} graphs with {calls} collective calls, compared in "
        f"{outcome.seconds:.2f} s{left_out}"
    )
