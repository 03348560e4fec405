"""Whether the ranks recorded the same collective calls, communicator by communicator.

Ranks of different communicators rightly record different calls: the stages of a pipeline do. So
every set of ranks that are together in a communicator is compared by the calls in which all of
the set take part. Where two communicators share ranks, these calls are those of both, so that
the order between them is compared too.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from itertools import combinations_with_replacement

from graphguard.audit.catalogue import finding
from graphguard.audit.findings import Finding, Side, agree, ranks_text
from graphguard.audit.graphs import Graph, World
from graphguard.audit.sequences import Difference, Numbering, Projection, compare
from graphguard.signature import POINT_TO_POINT

MAX_RANK_SETS = 64
"""Communicators of one rank, by their ranks, whose order is compared. The pairs are many."""


def unreadable_groups(graphs: Iterable[Graph]) -> Iterator[Finding]:
    """Find communicators whose text does not say which ranks they have."""
    callers: dict[str, set[int]] = {}
    first_graphs: dict[str, Graph] = {}
    for graph in graphs:
        for rank, calls in graph.distinct_calls.items():
            for text in {call.group for call in calls if graph.world.group(call.group) is None}:
                callers.setdefault(text, set()).add(rank)
                first_graphs.setdefault(text, graph)
    for text, ranks in callers.items():
        yield finding(
            "unreadable-group",
            tuple(sorted(ranks)),
            f"the communicator {_short(text)} does not say which ranks it has",
            evidence=first_graphs[text].world.evidence(sorted(ranks)),
        )


def missing_graph(graph: Graph) -> Iterator[Finding]:
    """Find ranks that did not record a graph whose collectives need them."""
    absent = tuple(sorted(graph.absent))
    if not absent:
        return
    present = tuple(sorted(graph.captures))
    call = graph.absent[absent[0]]
    yield finding(
        "missing-graph",
        absent,
        f"{ranks_text(absent)} did not capture a graph that {ranks_text(present)} did",
        graph=graph.text,
        sides=(
            Side(present, f"captured, with {call}"),
            Side(absent, "not captured"),
        ),
        evidence=graph.world.evidence((*present, *absent)),
    )


class CallComparison:
    """Compares the collective calls of the ranks, graph by graph.

    Args:
        world: The ranks that there are.
    """

    def __init__(self, world: World) -> None:
        self._world = world
        self._numbering = Numbering()

    def differences(self, graph: Graph) -> Iterator[Finding]:
        """Find where ranks of a communicator recorded different calls in a graph."""
        if len({signature.shared_digest for signature in graph.captures.values()}) == 1:
            return
        for calls in graph.distinct_calls.values():
            for call in calls:
                self._numbering.learn(call)
        domains, too_many = _domains(graph)
        yield from too_many
        told: set[tuple[int, int]] = set()
        for domain in domains:
            if len({graph.captures[rank].shared_digest for rank in domain}) > 1:
                yield from self._in_domain(graph, domain, told)

    def _in_domain(
        self, graph: Graph, domain: frozenset[int], told: set[tuple[int, int]]
    ) -> Iterator[Finding]:
        """Compare ranks by the calls of the communicators that have all of them.

        A call that differs is seen in every domain that it belongs to; ``told`` keeps the ranks
        and positions that were reported, so that it is told once.
        """
        scope = {text for text, members in graph.members.items() if domain <= members}
        projections = {rank: self._project(graph, rank, scope) for rank in sorted(domain)}
        classes: dict[tuple[int, ...], list[int]] = {}
        for rank, projection in projections.items():
            classes.setdefault(projection.numbers, []).append(rank)
        usual, *others = sorted(classes.values(), key=lambda ranks: (-len(ranks), ranks))
        majority = 2 * len(usual) > len(domain)
        reference = projections[usual[0]]
        told_here: set[tuple[int, int]] = set()
        for ranks in others:
            other = projections[ranks[0]]
            difference = compare(reference, other)
            seen = {(rank, projections[rank].position(difference.first)) for rank in ranks}
            if not majority:
                seen |= {(rank, reference.position(difference.first)) for rank in usual}
            if seen.isdisjoint(told):
                yield self._finding(graph, difference, (reference, usual), (other, ranks), majority)
            told_here |= seen
        told |= told_here

    def _project(self, graph: Graph, rank: int, scope: set[str]) -> Projection:
        calls = graph.captures[rank].collectives
        # Few calls differ as objects; to ask each of them once is what makes this fast.
        within = {
            id(call)
            for call in graph.distinct_calls[rank]
            if call.group in scope and call.operation not in POINT_TO_POINT
        }
        positions = tuple(i for i, call in enumerate(calls) if id(call) in within)
        return Projection(self._numbering.of([calls[i] for i in positions]), positions, calls)

    def _finding(
        self,
        graph: Graph,
        difference: Difference,
        usual: tuple[Projection, list[int]],
        other: tuple[Projection, list[int]],
        majority: bool,
    ) -> Finding:
        index = difference.first
        evidence = self._world.evidence([*usual[1], *other[1]])
        return finding(
            difference.rule,
            tuple(other[1]) if majority else tuple(sorted([*usual[1], *other[1]])),
            _sentence(difference, usual, other),
            graph=graph.text,
            position=min(usual[0].position(index), other[0].position(index)),
            sides=tuple(Side(tuple(ranks), side.text(index)) for side, ranks in (usual, other)),
            evidence=evidence,
        )


def _domains(graph: Graph) -> tuple[list[frozenset[int]], list[Finding]]:
    """Return the sets of ranks to compare, largest first, and a finding if they are too many."""
    domains: set[frozenset[int]] = set()
    crowded: list[int] = []
    by_rank: dict[int, set[frozenset[int]]] = {}
    for members in set(graph.members.values()):
        for rank in members:
            by_rank.setdefault(rank, set()).add(members)
    for rank, sets in by_rank.items():
        if len(sets) > MAX_RANK_SETS:
            crowded.append(rank)
            domains |= sets
        else:
            domains |= {a & b for a, b in combinations_with_replacement(sets, 2)}
    ordered = sorted((d for d in domains if len(d) > 1), key=lambda d: (-len(d), sorted(d)))
    if not crowded:
        return ordered, []
    ranks = tuple(sorted(crowded))
    what = (
        f"{ranks_text(ranks)} {agree(ranks, 'uses', 'use')} more than {MAX_RANK_SETS} communicators"
    )
    note = finding(
        "too-many-groups",
        ranks,
        f"{what}; the order of calls between them was not compared",
        graph=graph.text,
        evidence=graph.world.evidence(ranks),
    )
    return ordered, [note]


def _sentence(
    difference: Difference,
    usual: tuple[Projection, list[int]],
    other: tuple[Projection, list[int]],
) -> str:
    we, they = ranks_text(usual[1]), ranks_text(other[1])
    has = agree(other[1], "has", "have")
    if difference.rule == "collective-order":
        return f"{they} {agree(other[1], 'makes', 'make')} the calls of {we} in another order"
    if difference.rule == "collective-missing":
        counts = len(other[0].numbers), len(usual[0].numbers)
        have = agree(usual[1], "has", "have")
        return f"{they} {has} {counts[0]} collective calls where {we} {have} {counts[1]}"
    return f"{they} {has} another {difference.told} than {we}"


def _short(text: str) -> str:
    return repr(text if len(text) <= 80 else text[:77] + "...")
