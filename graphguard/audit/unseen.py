"""Communication in graphs that no recorder saw, so that no rank was compared in it."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

from graphguard.audit.catalogue import finding
from graphguard.audit.findings import Finding, agree, ranks_text
from graphguard.audit.load import LoadedManifest
from graphguard.communication import Unseen, unseen

MAX_NAMED = 8
"""Kernels that a sentence names."""


def unseen_communication(manifests: Sequence[LoadedManifest]) -> Iterator[Finding]:
    """Find graphs with communication kernels that recorded calls do not explain."""
    holders: dict[tuple[str, tuple[Unseen, ...]], list[LoadedManifest]] = {}
    for loaded in manifests:
        for signature in loaded.manifest.signatures:
            left = unseen(signature.graph_nodes, signature.collectives)
            if left:
                holders.setdefault((str(signature), left), []).append(loaded)
    for (graph, left), loaded_manifests in holders.items():
        ranks = tuple(dict.fromkeys(loaded.manifest.rank for loaded in loaded_manifests))
        kernels = sum(kernel.nodes for kernel in left)
        named = ", ".join(map(str, left[:MAX_NAMED]))
        more = f" and {len(left) - MAX_NAMED} more" if len(left) > MAX_NAMED else ""
        noun = agree(range(kernels), "communication kernel", "communication kernels")
        yield finding(
            "unseen-communication",
            ranks,
            f"{kernels} {noun} of {ranks_text(ranks)} not seen by any recorder: {named}{more}",
            graph=graph,
            evidence=tuple(dict.fromkeys(loaded.path for loaded in loaded_manifests)),
        )
