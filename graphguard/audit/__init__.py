"""Comparing the manifests of all ranks: every difference that breaks NCCL's rule.

All ranks must launch graphs that hold the same collectives. Nothing checks that at run time, so
it is checked here, from what the ranks recorded while they captured.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from types import MappingProxyType

from graphguard.audit import across_ranks, job, within_rank
from graphguard.audit.all_to_all import mismatched_splits
from graphguard.audit.buffers import overlapping_buffers
from graphguard.audit.findings import Coverage, Finding, Severity, Side
from graphguard.audit.graphs import Graph, World
from graphguard.audit.load import Loaded, LoadedManifest, load
from graphguard.audit.point_to_point import unpaired
from graphguard.audit.unseen import unseen_communication

__all__ = [
    "Coverage",
    "Finding",
    "Loaded",
    "LoadedManifest",
    "Severity",
    "Side",
    "audit",
    "coverage",
    "load",
]

_NOTHING_SAID: Mapping[str, int] = MappingProxyType({})


def audit(
    manifests: Sequence[LoadedManifest], query_lens: Mapping[str, int] = _NOTHING_SAID
) -> list[Finding]:
    """Return everything that is wrong with the manifests of a job, always in the same order.

    Args:
        manifests: The manifests of all ranks, as :func:`load` returns them.
        query_lens: For each role, the query tokens of a request in a uniform decode step, where
            the manifests do not say so or are wrong.
    """
    manifests = sorted(manifests, key=lambda loaded: (loaded.manifest.rank, loaded.path))
    if not manifests:
        return []
    world = World(manifests)
    graphs = list(world.graphs())
    return [
        *job.world_sizes(manifests),
        *job.missing_ranks(manifests),
        *job.duplicate_ranks(manifests),
        *_differences(world, graphs),
        *across_ranks.unreadable_groups(graphs),
        *within_rank.digest_mismatches(manifests),
        *within_rank.duplicate_captures(manifests),
        *within_rank.unfillable_sizes(manifests, query_lens),
        *within_rank.recorder_disagreements(manifests),
        *overlapping_buffers(manifests),
        *unseen_communication(manifests),
        *job.versions(manifests),
        *job.modes(manifests),
    ]


def coverage(manifests: Sequence[LoadedManifest]) -> Coverage:
    """Return what there is to look at in some manifests."""
    graphs: dict[str, set[int]] = {}
    for _, manifest in manifests:
        for signature in manifest.signatures:
            graphs.setdefault(str(signature), set()).add(manifest.rank)
    return Coverage(
        ranks=tuple(sorted({loaded.manifest.rank for loaded in manifests})),
        graphs={graph: tuple(sorted(ranks)) for graph, ranks in graphs.items()},
        collectives=sum(len(s.collectives) for _, m in manifests for s in m.signatures),
        files=tuple(loaded.path for loaded in manifests),
    )


def _differences(world: World, graphs: Sequence[Graph]) -> Iterator[Finding]:
    comparison = across_ranks.CallComparison(world)
    for graph in graphs:
        yield from across_ranks.missing_graph(graph)
        yield from comparison.differences(graph)
        yield from unpaired(graph)
        yield from mismatched_splits(graph)
