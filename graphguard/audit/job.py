"""Whether manifests belong to one job, and are all of it."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from itertools import groupby

from graphguard.audit.catalogue import finding
from graphguard.audit.findings import Finding, Side, agree, ranks_text, runs_text
from graphguard.audit.load import LoadedManifest

COMPARED_VERSIONS = ("graphguard", "torch", "cuda", "nccl", "vllm")
"""What has to have the same version on all ranks, where its version was recorded."""

MAX_LISTED_RANKS = 1_024
"""A finding lists at most this many missing ranks one by one."""


def duplicate_ranks(manifests: Sequence[LoadedManifest]) -> Iterator[Finding]:
    """Find ranks that several files claim to be."""
    for rank, claims in groupby(manifests, key=lambda loaded: loaded.manifest.rank):
        paths = tuple(loaded.path for loaded in claims)
        if len(paths) > 1:
            yield finding(
                "duplicate-rank",
                (rank,),
                f"{len(paths)} manifests claim to be of rank {rank}",
                evidence=paths,
            )


def world_sizes(manifests: Sequence[LoadedManifest]) -> Iterator[Finding]:
    """Find ranks that disagree about the size of the job, or are not in it."""
    sizes = {loaded.manifest.rank: str(loaded.manifest.world_size) for loaded in manifests}
    if len(set(sizes.values())) > 1:
        yield _difference("world-size-differs", "world size", sizes, manifests)
    for path, manifest in manifests:
        if manifest.rank >= manifest.world_size:
            yield finding(
                "rank-outside-world",
                (manifest.rank,),
                f"rank {manifest.rank} is not a rank of a job of {manifest.world_size} processes",
                evidence=(path,),
            )


def missing_ranks(manifests: Sequence[LoadedManifest]) -> Iterator[Finding]:
    """Find ranks of the job that no manifest is of."""
    sizes = Counter(loaded.manifest.world_size for loaded in manifests)
    world_size = max(sizes, key=lambda size: (sizes[size], size))
    gaps = list(_gaps((loaded.manifest.rank for loaded in manifests), world_size))
    if not gaps:
        return
    total = sum(last - first + 1 for first, last in gaps)
    listed = [
        rank for gap in gaps for rank in range(gap[0], min(gap[1] + 1, gap[0] + MAX_LISTED_RANKS))
    ]
    yield finding(
        "missing-rank",
        tuple(listed[:MAX_LISTED_RANKS]),
        f"the job has {world_size} processes, and there is no manifest of "
        f"{'rank' if total == 1 else 'ranks'} {runs_text(gaps)}",
        evidence=tuple(loaded.path for loaded in manifests),
    )


def versions(manifests: Sequence[LoadedManifest]) -> Iterator[Finding]:
    """Find software whose version is not the same on all ranks."""
    for name in COMPARED_VERSIONS:
        recorded = {
            loaded.manifest.rank: loaded.manifest.versions[name]
            for loaded in manifests
            if name in loaded.manifest.versions
        }
        if len(set(recorded.values())) > 1:
            yield _difference("versions-differ", f"version of {name}", recorded, manifests)


def modes(manifests: Sequence[LoadedManifest]) -> Iterator[Finding]:
    """Find guards that go further on some ranks than on others."""
    recorded = {m.rank: m.mode for _, m in manifests if m.mode}
    if len(set(recorded.values())) > 1:
        yield _difference("modes-differ", "mode of the guard", recorded, manifests)


def _difference(
    rule: str, subject: str, values: dict[int, str], manifests: Sequence[LoadedManifest]
) -> Finding:
    """Report values of ranks that differ, blaming the minority if there is one."""
    holders: dict[str, list[int]] = {}
    for rank, value in values.items():
        holders.setdefault(value, []).append(rank)
    order = sorted(holders.items(), key=lambda item: (-len(item[1]), item[1]))
    usual = order[0][1]
    to_blame = (
        sorted(values) if 2 * len(usual) <= len(values) else sorted(values.keys() - set(usual))
    )
    told = "; ".join(f"{ranks_text(r)} {agree(r, 'has', 'have')} {value}" for value, r in order)
    return finding(
        rule,
        tuple(to_blame),
        f"the {subject} differs: {told}",
        sides=tuple(Side(tuple(ranks), value) for value, ranks in order),
        evidence=tuple(path for path, manifest in manifests if manifest.rank in values),
    )


def _gaps(ranks: Iterable[int], world_size: int) -> Iterator[tuple[int, int]]:
    expected = 0
    for rank in ranks:
        if expected < rank <= world_size:
            yield expected, rank - 1
        expected = max(expected, rank + 1)
    if expected < world_size:
        yield expected, world_size - 1
