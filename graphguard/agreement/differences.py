"""What ranks captured differently, and who of them differs from the rest."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from typing import Generic, TypeVar

import msgspec

from graphguard.agreement.sealed import Sealed, graph_name
from graphguard.audit.findings import Side, agree, ranks_text

Value = TypeVar("Value")
Ranks = tuple[int, ...]


class Difference(msgspec.Struct, frozen=True, kw_only=True):
    """One thing that the ranks of a group do not have in common.

    Attributes:
        rule: What is broken, in kebab-case; the words of the audit where it has one.
        what: What differs, as one sentence.
        graph: The graph, as its key and batch; empty where it is about no single graph.
        blamed: The ranks that differ from most of the others; empty where no strict majority
            says who that is.
        sides: What the ranks have, side by side, most ranks first.
        position: Index, from 0, of the first collective call that differs, among all calls of the
            graph. Sends and receives may shift it between two ranks; then it is the smaller one.
            None where it is about no single call.
    """

    rule: str
    what: str
    graph: str = ""
    blamed: tuple[int, ...] = ()
    sides: tuple[Side, ...] = ()
    position: int | None = None

    def __str__(self) -> str:
        graph = f"{self.graph}: " if self.graph else ""
        place = "" if self.position is None else f", first at call {self.position}"
        sides = "; ".join(f"{ranks_text(side.ranks)}: {side.text}" for side in self.sides)
        return f"{graph}{self.what}{place} ({sides})"


class Parting(Generic[Value]):
    """Ranks, parted by what they have.

    Args:
        values: What each rank has; ranks with equal values stand together.

    Attributes:
        sides: The ranks of each side, most ranks first; among equals, the lowest rank.
        majority: Whether the first side has more than half of the ranks.
    """

    def __init__(self, values: Mapping[int, Value]) -> None:
        together: dict[Value, list[int]] = {}
        for rank in sorted(values):
            together.setdefault(values[rank], []).append(rank)
        ordered = sorted(together.items(), key=lambda side: (-len(side[1]), side[1]))
        self.sides = [(tuple(ranks), value) for value, ranks in ordered]
        self.majority = bool(ordered) and 2 * len(ordered[0][1]) > len(values)

    @property
    def others(self) -> tuple[int, ...]:
        """All ranks but those of the first side."""
        return tuple(sorted(rank for ranks, _ in self.sides[1:] for rank in ranks))

    @property
    def blamed(self) -> tuple[int, ...]:
        """The ranks that differ from a majority, if there is one."""
        return self.others if self.majority else ()

    def difference(
        self,
        rule: str,
        *,
        blaming: Callable[[Ranks, Ranks], str],
        without: str,
        text: Callable[[Value], str] = str,
        graph: str = "",
    ) -> Iterator[Difference]:
        """Make a difference of more than one side.

        Args:
            rule: What is broken.
            blaming: Says it of some ranks and the majority that they differ from.
            without: Says it without a majority.
            text: A value as text.
            graph: The graph that it is about.
        """
        if len(self.sides) > 1:
            usual = self.sides[0][0]
            yield Difference(
                rule=rule,
                what=blaming(self.others, usual) if self.majority else without,
                graph=graph,
                blamed=self.blamed,
                sides=tuple(Side(ranks, text(value)) for ranks, value in self.sides),
            )


def modes(sealed: Mapping[int, Sealed]) -> Iterator[Difference]:
    """Find ranks that run in different modes: one would act where another only looks."""
    return Parting({rank: post.mode for rank, post in sealed.items()}).difference(
        "modes-differ",
        blaming=lambda they, usual: (
            f"{said_of(they, 'runs', 'run')} in another mode than {ranks_text(usual)}"
        ),
        without="the ranks run in different modes",
    )


def keys(sealed: Mapping[int, Sealed]) -> Iterator[Difference]:
    """Find ranks that seal different families of graphs."""
    return Parting({rank: post.key for rank, post in sealed.items()}).difference(
        "keys-differ",
        blaming=lambda they, usual: (
            f"{ranks_text(they)} sealed another family of graphs than {ranks_text(usual)}"
        ),
        without="the ranks sealed different families of graphs",
    )


def captured(sealed: Mapping[int, Sealed]) -> Iterator[Difference]:
    """Find graphs that some ranks captured and others did not.

    A rank whose capture failed says so itself; what it lacks is no further difference.
    """
    batches = dict.fromkeys(graph.batch for post in sealed.values() for graph in post.graphs)
    for batch in batches:
        has = {
            rank: batch in post.digests
            for rank, post in sealed.items()
            if batch in post.digests or not post.failure
        }
        present = tuple(rank for rank in sorted(has) if has[rank])
        absent = tuple(rank for rank in sorted(has) if not has[rank])
        if not absent:
            continue
        parting = Parting(has)
        yield Difference(
            rule="missing-graph",
            what=f"{ranks_text(absent)} did not capture a graph that {ranks_text(present)} did",
            graph=graph_name(sealed[present[0]].key, batch),
            blamed=parting.blamed,
            sides=tuple(
                Side(ranks, "captured" if value else "not captured")
                for ranks, value in parting.sides
            ),
        )


def orders(sealed: Mapping[int, Sealed]) -> Iterator[Difference]:
    """Find ranks that captured the same graphs in different orders.

    Among graphs that fit a batch alike, the one that was captured first is used.
    """
    whole = {rank: post for rank, post in sealed.items() if not post.failure}
    if not whole:
        return
    key = next(iter(whole.values())).key
    common = set.intersection(*(set(post.digests) for post in whole.values()))
    # The order of a post's digests is that of its captures.
    parting = Parting(
        {rank: tuple(b for b in post.digests if b in common) for rank, post in whole.items()}
    )
    reference, *others = (order for _, order in parting.sides)
    positions = (i for order in others for i, b in enumerate(order) if b != reference[i])
    first = min(positions, default=0)
    yield from parting.difference(
        "capture-order",
        blaming=lambda they, usual: (
            f"{ranks_text(they)} captured the graphs of {key} in another order than "
            f"{ranks_text(usual)}"
        ),
        without=f"the ranks captured the graphs of {key} in different orders",
        text=lambda order: f"{order[first]} as number {first}",
    )


def said_of(ranks: tuple[int, ...], singular: str, plural: str) -> str:
    """Return ranks with the verb that goes with them."""
    return f"{ranks_text(ranks)} {agree(ranks, singular, plural)}"
