"""What can be wrong with the graphs of one rank, whatever the others do."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Mapping, Sequence

from graphguard.audit.catalogue import finding
from graphguard.audit.findings import Finding, agree, ranks_text
from graphguard.audit.load import LoadedManifest
from graphguard.manifest import Manifest
from graphguard.signature import GraphMode
from graphguard.verdict import Phase

MAX_LISTED_SIZES = 32
"""A sentence lists at most this many sizes."""


def digest_mismatches(manifests: Sequence[LoadedManifest]) -> Iterator[Finding]:
    """Find graphs whose digests are not those that the file gives."""
    for path, manifest in manifests:
        written = manifest.written_digests
        for signature, digests in zip(manifest.signatures, written, strict=bool(written)):
            wrong = [
                name
                for name, ours, theirs in zip(
                    ("shared", "local"), signature.digests, digests, strict=True
                )
                if ours != theirs
            ]
            if wrong:
                yield finding(
                    "digest-mismatch",
                    (manifest.rank,),
                    f"the {' and the '.join(wrong)} digest of the graph "
                    f"{agree(wrong, 'does', 'do')} not fit what the file says of it",
                    graph=str(signature),
                    evidence=(path,),
                )


def unfillable_sizes(
    manifests: Sequence[LoadedManifest], query_lens: Mapping[str, int]
) -> Iterator[Finding]:
    """Find piecewise graphs of a size that no batch of equal requests can fill."""
    holders: dict[tuple[str, int, tuple[int, ...]], list[LoadedManifest]] = {}
    for loaded in manifests:
        sizes: dict[str, set[int]] = {}
        for signature in loaded.manifest.signatures:
            if signature.key.mode is GraphMode.PIECEWISE:
                sizes.setdefault(signature.key.role, set()).add(signature.batch.num_tokens)
        for role, captured in sizes.items():
            query_len = query_lens.get(role) or _query_len(loaded.manifest, role)
            unfillable = tuple(sorted(n for n in captured if query_len and n % query_len))
            if unfillable:
                holders.setdefault((role, query_len, unfillable), []).append(loaded)
    for (role, query_len, unfillable), loaded_manifests in holders.items():
        ranks = tuple(loaded.manifest.rank for loaded in loaded_manifests)
        listed = ", ".join(map(str, unfillable[:MAX_LISTED_SIZES]))
        more = (
            ""
            if len(unfillable) <= MAX_LISTED_SIZES
            else f" and {len(unfillable) - MAX_LISTED_SIZES} more"
        )
        yield finding(
            "unfillable-size",
            ranks,
            f"{ranks_text(ranks)} captured graphs for {listed}{more} tokens; "
            f"requests of {query_len} query tokens each never fill them",
            graph=f"{role}/{GraphMode.PIECEWISE}",
            evidence=tuple(loaded.path for loaded in loaded_manifests),
        )


def duplicate_captures(manifests: Sequence[LoadedManifest]) -> Iterator[Finding]:
    """Find graphs that a rank captured more than once."""
    holders: dict[tuple[str, int], list[LoadedManifest]] = {}
    for loaded in manifests:
        times = Counter((s.key, s.batch) for s in loaded.manifest.signatures)
        for (key, batch), count in times.items():
            if count > 1:
                holders.setdefault((f"{key} {batch}", count), []).append(loaded)
    for (graph, count), loaded_manifests in holders.items():
        ranks = tuple(loaded.manifest.rank for loaded in loaded_manifests)
        yield finding(
            "duplicate-capture",
            ranks,
            f"{ranks_text(ranks)} captured the graph {count} times",
            graph=graph,
            evidence=tuple(loaded.path for loaded in loaded_manifests),
        )


def recorder_disagreements(manifests: Sequence[LoadedManifest]) -> Iterator[Finding]:
    """Find graphs whose calls were told differently by the recorders of one rank.

    One finding for each graph and sentence, whichever ranks it was the same on.
    """
    holders: dict[tuple[str, str], list[LoadedManifest]] = {}
    times: Counter[tuple[str, str]] = Counter()
    for loaded in manifests:
        for signature in loaded.manifest.signatures:
            graph = str(signature)
            told = dict.fromkeys(signature.disagreements)
            first = next(iter(told), None)
            if first is None:
                continue
            holders.setdefault((graph, first), []).append(loaded)
            times[graph, first] = max(times[graph, first], len(told))
    for (graph, sentence), loaded_manifests in holders.items():
        ranks = tuple(dict.fromkeys(loaded.manifest.rank for loaded in loaded_manifests))
        yield finding(
            "recorders-disagree",
            ranks,
            f"on {ranks_text(ranks)} the recorders of the graph do not agree: {sentence}",
            graph=graph,
            evidence=tuple(dict.fromkeys(loaded.path for loaded in loaded_manifests)),
            repeats=times[graph, sentence],
        )


def _query_len(manifest: Manifest, role: str) -> int:
    """Return the query tokens of a uniform decode step of a role, or 0 if nothing tells."""
    if role in manifest.query_lens:
        return manifest.query_lens[role]
    recorded = {
        signature.batch.query_len
        for signature in manifest.signatures
        if signature.key.role == role
        and signature.key.mode is GraphMode.FULL
        and signature.batch.uniform
        and signature.batch.phase == Phase.DECODE
        and signature.batch.query_len > 1
    }
    return recorded.pop() if len(recorded) == 1 else 0
