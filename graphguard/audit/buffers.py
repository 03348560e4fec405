"""Whether static tensors of different graphs lie over each other in memory.

Much sharing is meant. Graphs of several sizes read slices of the same input, which start at the
same address; and the graphs of one role, of which one replays at a time, return their outputs in
a pool of memory that they share.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import NamedTuple

from graphguard.audit.catalogue import finding
from graphguard.audit.findings import Finding, Severity, Side, ranks_text
from graphguard.audit.load import LoadedManifest
from graphguard.manifest import Manifest

MAX_KINDS = 64
"""Roles and directions that are told apart. Real programs have a handful."""


class _Buffer(NamedTuple):
    """A static tensor of a graph. Buffers sort by where they are."""

    device: str
    start: int
    end: int
    graph: int
    is_output: bool
    role: str
    graph_text: str
    name: str

    def text(self) -> str:
        kind = "output" if self.is_output else "input"
        name = f"{kind} {self.name}" if self.name else kind
        return f"{name} of {self.graph_text}: {self.start:#x} to {self.end:#x} on {self.device}"


_Pair = tuple[_Buffer, _Buffer]


def overlapping_buffers(manifests: Sequence[LoadedManifest]) -> Iterator[Finding]:
    """Find outputs of one graph that lie over a buffer of another, the first of each two roles."""
    for path, manifest in manifests:
        first: dict[tuple[str, str], _Pair] = {}
        counts: dict[tuple[str, str], int] = {}
        for one, other in _overlaps(_buffers(manifest)):
            low, high = sorted((one.role, other.role))
            first.setdefault((low, high), (one, other))
            counts[low, high] = counts.get((low, high), 0) + 1
        for roles, (one, other) in first.items():
            yield finding(
                "overlapping-buffers",
                (manifest.rank,),
                f"on {ranks_text((manifest.rank,))} an output of one graph lies over a buffer of "
                f"another ({one.graph_text} and {other.graph_text})",
                graph=one.graph_text,
                sides=tuple(Side((manifest.rank,), buffer.text()) for buffer in (one, other)),
                evidence=(path,),
                # Graphs of one role replay one at a time, so that this may be meant.
                severity=Severity.WARNING if roles[0] == roles[1] else Severity.ERROR,
                repeats=counts[roles],
            )


def _buffers(manifest: Manifest) -> list[_Buffer]:
    return sorted(
        _Buffer(
            device=tensor.device,
            start=tensor.address,
            end=tensor.address + tensor.nbytes,
            graph=graph,
            is_output=index >= signature.num_inputs,
            role=signature.key.role,
            graph_text=str(signature),
            name=tensor.name,
        )
        for graph, signature in enumerate(manifest.signatures)
        for index, tensor in enumerate(signature.tensors)
        if tensor.nbytes
    )


def _overlaps(buffers: Sequence[_Buffer]) -> Iterator[_Pair]:
    """Sweep over buffers by address and yield each with earlier ones that reach into it.

    Of the buffers so far only those that reach farthest are kept, for each role and direction:
    what overlaps any of them overlaps one of these, and the work does not grow with the pairs.
    """
    farthest: dict[tuple[str, bool], list[_Buffer]] = {}
    device = ""
    for buffer in buffers:
        if buffer.device != device:
            device = buffer.device
            farthest.clear()
        for candidates in farthest.values():
            for earlier in candidates:
                if earlier.end > buffer.start and _clashes(earlier, buffer):
                    yield earlier, buffer
                    break
        kind = (buffer.role, buffer.is_output)
        if kind in farthest or len(farthest) < MAX_KINDS:
            _keep(farthest.setdefault(kind, []), buffer)


def _keep(candidates: list[_Buffer], buffer: _Buffer) -> None:
    """Keep the buffers that reach farthest, and enough of them for any later buffer.

    A later buffer does not clash with those of its own graph or of its own start. Two of each
    graph and two of each start are kept, so of five at least one is neither.
    """
    candidates.append(buffer)
    candidates.sort(key=lambda candidate: candidate.end, reverse=True)
    kept: list[_Buffer] = []
    for candidate in candidates:
        graphs = [other.start for other in kept if other.graph == candidate.graph]
        starts = [other for other in kept if other.start == candidate.start]
        known = candidate.start in graphs
        if not known and len(graphs) < 2 and len(starts) < 2 and len(kept) < 5:
            kept.append(candidate)
    candidates[:] = kept


def _clashes(one: _Buffer, other: _Buffer) -> bool:
    if one.graph == other.graph or not (one.is_output or other.is_output):
        return False
    if one.role != other.role:
        # Roles that begin an output at one address share it by agreement.
        return one.start != other.start or one.is_output != other.is_output
    return one.start != other.start and one.is_output != other.is_output
