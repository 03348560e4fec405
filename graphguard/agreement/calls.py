"""The first collective call in which ranks captured a graph differently.

Digests say that graphs differ, not in what. So each rank posts its calls of a few of them.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Annotated

import msgspec
from msgspec import Meta

from graphguard.agreement.differences import Difference, Parting, Ranks, said_of
from graphguard.agreement.scopes import Scope, Scopes
from graphguard.agreement.sealed import encode, graph_name
from graphguard.audit.findings import Side, ranks_text
from graphguard.audit.sequences import Difference as Place
from graphguard.audit.sequences import Numbering, Projection, compare
from graphguard.signature import CollectiveCall, Name, Natural, Signature

MAX_COMPARED_GRAPHS = 4
MAX_POST_BYTES = 2**20
MAX_CALLS = 1_000_000


class _GraphCalls(msgspec.Struct, frozen=True, array_like=True):
    """The calls of a graph, as positions in a table; not all of them where they are too many."""

    batch: Name
    all_calls: Natural
    calls: Annotated[tuple[Natural, ...], Meta(max_length=MAX_CALLS)]


class PostedCalls(msgspec.Struct, frozen=True):
    """What a rank posts: its calls of some graphs, each different call once."""

    table: Annotated[tuple[CollectiveCall, ...], Meta(max_length=MAX_CALLS)]
    graphs: Annotated[tuple[_GraphCalls, ...], Meta(max_length=MAX_COMPARED_GRAPHS)]

    def of(self, batch: str) -> tuple[CollectiveCall, ...]:
        """Return the calls of a graph, as far as they were posted."""
        for graph in self.graphs:
            if graph.batch == batch:
                return tuple(self.table[i] for i in graph.calls if i < len(self.table))
        return ()


def posted(signatures: Mapping[str, Signature]) -> bytes:
    """Return what this rank posts about the calls of some graphs, by their text, at most 1 MiB.

    Where they do not fit, only the first calls of each graph are posted.
    """
    limit = max((len(signature.collectives) for signature in signatures.values()), default=0)
    while len(post := _encoded(signatures, limit)) > MAX_POST_BYTES:
        limit //= 2
    return post


def _encoded(signatures: Mapping[str, Signature], limit: int) -> bytes:
    table: dict[CollectiveCall, int] = {}
    graphs = tuple(
        _GraphCalls(
            text,
            len(signature.collectives),
            tuple(table.setdefault(c, len(table)) for c in signature.collectives[:limit]),
        )
        for text, signature in signatures.items()
    )
    return encode(PostedCalls(tuple(table), graphs))


class CallComparison:
    """Says in which call the ranks differ.

    Args:
        key: The family of the graphs.
        scopes: Which ranks are compared by which calls.
        posts: What each rank posted about its calls.
    """

    def __init__(self, key: str, scopes: Scopes, posts: Mapping[int, PostedCalls]) -> None:
        self._key = key
        self._scopes = scopes
        self._posts = posts
        self._numbering = Numbering()
        for post in posts.values():
            for call in post.table:
                self._numbering.learn(call)

    def differences(
        self, batch: str, digests: Mapping[Scope, Mapping[int, str]]
    ) -> Iterator[Difference]:
        """Find where ranks differ in a graph.

        A call that differs is seen in every scope that it belongs to, and told in the largest.

        Args:
            batch: The graph.
            digests: For each scope in which its ranks differ, their digests; largest first.
        """
        told: set[tuple[int, int]] = set()
        for scope, by_rank in digests.items():
            parting = Parting(by_rank)
            (usual, _), *others = parting.sides
            reference = self._project(batch, scope, usual[0])
            seen_here: set[tuple[int, int]] = set()
            for ranks, _ in others:
                other = self._project(batch, scope, ranks[0])
                if reference.numbers == other.numbers:
                    yield from unlocated(
                        graph_name(self._key, batch), parting, len(reference.graph)
                    )
                    break
                seen, difference = self._compare(
                    graph_name(self._key, batch),
                    (usual, reference),
                    (ranks, other),
                    parting.majority,
                )
                if told.isdisjoint(seen):
                    yield difference
                seen_here |= seen
            told |= seen_here

    def _project(self, batch: str, scope: Scope, rank: int) -> Projection:
        calls = self._posts[rank].of(batch)
        positions = self._scopes.positions(scope, calls)
        return Projection(self._numbering.of([calls[i] for i in positions]), positions, calls)

    def _compare(
        self,
        graph: str,
        usual: tuple[Ranks, Projection],
        other: tuple[Ranks, Projection],
        majority: bool,
    ) -> tuple[set[tuple[int, int]], Difference]:
        """Return the difference of two sides, and the rank and position of where it is seen."""
        place = compare(usual[1], other[1])
        seen = {(rank, other[1].position(place.first)) for rank in other[0]}
        if not majority:
            seen |= {(rank, usual[1].position(place.first)) for rank in usual[0]}
        return seen, Difference(
            rule=place.rule,
            what=_sentence(place, usual, other, majority),
            graph=graph,
            blamed=other[0] if majority else (),
            sides=tuple(Side(ranks, side.text(place.first)) for ranks, side in (usual, other)),
            position=min(side.position(place.first) for _, side in (usual, other)),
        )


def unlocated(graph: str, parting: Parting[str], compared: int = 0) -> Iterator[Difference]:
    """Find a difference of digests where the calls were not posted, or only the first of them."""
    first = f", but not among the first {compared}" if compared else ""
    return parting.difference(
        "collective-differs",
        blaming=lambda they, usual: (
            f"{said_of(they, 'has', 'have')} other collective calls than {ranks_text(usual)}{first}"
        ),
        without=f"the ranks have different collective calls{first}",
        text=lambda digest: f"digest {digest}",
        graph=graph,
    )


def _sentence(
    place: Place,
    usual: tuple[Ranks, Projection],
    other: tuple[Ranks, Projection],
    majority: bool,
) -> str:
    we, they = ranks_text(usual[0]), ranks_text(other[0])
    if place.rule == "collective-missing":
        counts = len(other[1].numbers), len(usual[1].numbers)
        return (
            f"{said_of(other[0], 'has', 'have')} {counts[0]} collective calls where "
            f"{said_of(usual[0], 'has', 'have')} {counts[1]}"
        )
    if place.rule == "collective-order":
        if majority:
            return f"{said_of(other[0], 'makes', 'make')} the calls of {we} in another order"
        return f"{we} and {they} make the same calls in different orders"
    if majority:
        return f"{said_of(other[0], 'has', 'have')} another {place.told} than {we}"
    return f"{we} and {they} differ in the {place.told} of a call"
