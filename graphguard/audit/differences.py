"""Comparing two recordings of one program: another version, another setting, another machine.

An audit compares the ranks of one run, which must be alike. Here the same rank is compared in two
runs, which may differ; the question is in what, before the newer one goes live.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from itertools import chain

import msgspec

from graphguard.audit.differences_graphs import GraphDifference, compare_graphs
from graphguard.audit.load import LoadedManifest
from graphguard.manifest import Manifest


class OnRanks(msgspec.Struct, frozen=True):
    """A graph that differs, and the ranks on which it differs in this way.

    Attributes:
        ranks: The ranks, ascending.
        difference: How it differs.
    """

    ranks: tuple[int, ...]
    difference: GraphDifference


class SettingChange(msgspec.Struct, frozen=True):
    """Something of the whole job that differs.

    Attributes:
        what: ``world size``, ``version of torch``, ``query length of target`` …
        before: What it is in the first recording, or None if it does not say.
        after: The same in the second.
    """

    what: str
    before: str | None
    after: str | None


class Differences(msgspec.Struct, frozen=True):
    """How two recordings of a program differ.

    Attributes:
        graphs: The graphs that differ, alike differences of several ranks together.
        settings: What differs in the settings of the job. They count as differences.
        versions: Which versions differ. That is mostly why one compares, and counts as none.
        ranks: The ranks that were compared.
        gone: Ranks that only the first recording has.
        added: Ranks that only the second has.
        alike: How many graphs are the same, on all ranks together.
        nodes_unknown: How many graphs of both have nodes that one of them did not record.
    """

    graphs: tuple[OnRanks, ...]
    settings: tuple[SettingChange, ...]
    versions: tuple[SettingChange, ...]
    ranks: tuple[int, ...]
    gone: tuple[int, ...]
    added: tuple[int, ...]
    alike: int
    nodes_unknown: int

    @property
    def any(self) -> bool:
        """Whether there is any difference that counts."""
        return bool(self.graphs or self.settings or self.gone or self.added)


def compare(ours: Sequence[LoadedManifest], theirs: Sequence[LoadedManifest]) -> Differences:
    """Compare two recordings of one program, rank by rank.

    Where each is of one process only, these two are compared, whichever ranks they are.

    Args:
        ours: The manifests of the first recording. Of several of one rank, the first one counts.
        theirs: Those of the second.
    """
    before, after = _by_rank(ours), _by_rank(theirs)
    if len(before) == len(after) == 1:
        after = dict(zip(before, after.values(), strict=True))
    ranks = sorted(before.keys() & after.keys())
    pairs = [(rank, before[rank], after[rank]) for rank in ranks]
    compared = {rank: compare_graphs(one, other) for rank, one, other in pairs}
    grouped: dict[bytes, tuple[GraphDifference, list[int]]] = {}
    for rank, graphs in compared.items():
        for difference in graphs.differences:
            key = msgspec.msgpack.encode(difference)
            grouped.setdefault(key, (difference, []))[1].append(rank)
    return Differences(
        graphs=tuple(OnRanks(tuple(on), difference) for difference, on in grouped.values()),
        settings=_distinct(chain.from_iterable(_settings(*pair[1:]) for pair in pairs)),
        versions=_distinct(chain.from_iterable(_versions(*pair[1:]) for pair in pairs)),
        ranks=tuple(ranks),
        gone=tuple(sorted(before.keys() - after.keys())),
        added=tuple(sorted(after.keys() - before.keys())),
        alike=sum(graphs.alike for graphs in compared.values()),
        nodes_unknown=sum(graphs.nodes_unknown for graphs in compared.values()),
    )


def _by_rank(manifests: Sequence[LoadedManifest]) -> dict[int, Manifest]:
    by_rank: dict[int, Manifest] = {}
    for loaded in manifests:
        by_rank.setdefault(loaded.manifest.rank, loaded.manifest)
    return by_rank


def _settings(ours: Manifest, theirs: Manifest) -> Iterator[SettingChange]:
    if ours.world_size != theirs.world_size:
        yield SettingChange("world size", str(ours.world_size), str(theirs.world_size))
    if ours.mode != theirs.mode:
        yield SettingChange("mode", ours.mode or None, theirs.mode or None)
    for role in sorted(ours.query_lens.keys() | theirs.query_lens.keys()):
        before, after = ours.query_lens.get(role), theirs.query_lens.get(role)
        if before != after:
            yield SettingChange(f"query length of {role}", _or_none(before), _or_none(after))


def _versions(ours: Manifest, theirs: Manifest) -> Iterator[SettingChange]:
    for name in sorted(ours.versions.keys() | theirs.versions.keys()):
        before, after = ours.versions.get(name), theirs.versions.get(name)
        if before != after:
            yield SettingChange(f"version of {name}", before, after)


def _or_none(number: int | None) -> str | None:
    return None if number is None else str(number)


def _distinct(changes: Iterator[SettingChange]) -> tuple[SettingChange, ...]:
    return tuple(dict.fromkeys(changes))
