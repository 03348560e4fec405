"""The graphs of a job: what each rank recorded of each, and which ranks must have it."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from functools import cached_property

from graphguard.audit.groups import Group
from graphguard.audit.load import LoadedManifest
from graphguard.batch import BatchDescriptor
from graphguard.signature import ONE_SIDED, POINT_TO_POINT, CollectiveCall, GraphKey, Signature


class World:
    """The ranks whose manifests were read, and the communicators between them.

    Args:
        manifests: The manifests, by rank. Of several of one rank the first one counts.
    """

    def __init__(self, manifests: Sequence[LoadedManifest]) -> None:
        self.paths: dict[int, str] = {}
        self._first_of_rank: list[LoadedManifest] = []
        for loaded in manifests:
            if loaded.manifest.rank not in self.paths:
                self.paths[loaded.manifest.rank] = loaded.path
                self._first_of_rank.append(loaded)
        self.ranks = sorted(self.paths)
        self._groups: dict[str, Group | None] = {}
        self._members: dict[str, frozenset[int]] = {}

    def group(self, text: str) -> Group | None:
        """Return the communicator of a text; None if the text does not say its ranks."""
        if text not in self._groups:
            self._groups[text] = Group.parse(text)
        return self._groups[text]

    def members(self, text: str) -> frozenset[int]:
        """Return the ranks of a communicator whose manifests were read."""
        if text not in self._members:
            group = self.group(text)
            self._members[text] = group.among(self.ranks) if group else frozenset()
        return self._members[text]

    def evidence(self, ranks: Sequence[int]) -> tuple[str, ...]:
        """Return the files of some ranks."""
        return tuple(self.paths[rank] for rank in sorted(ranks))

    def graphs(self) -> Iterator[Graph]:
        """Yield every graph that any rank recorded, in the order of capture."""
        graphs: dict[tuple[GraphKey, BatchDescriptor, int], dict[int, Signature]] = {}
        for _, manifest in self._first_of_rank:
            seen: dict[tuple[GraphKey, BatchDescriptor], int] = {}
            for signature in manifest.signatures:
                name = (signature.key, signature.batch)
                number = seen[name] = seen.get(name, 0) + 1
                graphs.setdefault((*name, number), {})[manifest.rank] = signature
        for (key, batch, number), captures in graphs.items():
            text = f"{key} {batch}" + (f" (capture {number})" if number > 1 else "")
            yield Graph(text, captures, self)


class Graph:
    """One graph, as the ranks recorded it.

    Args:
        text: Its key and batch.
        captures: What each rank recorded.
        world: The ranks that there are.
    """

    def __init__(self, text: str, captures: dict[int, Signature], world: World) -> None:
        self.text = text
        self.captures = captures
        self.world = world

    @cached_property
    def distinct_calls(self) -> dict[int, tuple[CollectiveCall, ...]]:
        """For each rank, its calls, those that are one object only once."""
        return {
            rank: tuple({id(call): call for call in signature.collectives}.values())
            for rank, signature in self.captures.items()
        }

    @cached_property
    def members(self) -> dict[str, frozenset[int]]:
        """For each communicator that collectives use, the ranks that recorded the graph.

        Where its text does not say its ranks, these are the ranks that use it.
        """
        callers: dict[str, set[int]] = {}
        for rank, calls in self.distinct_calls.items():
            for call in calls:
                if call.operation not in POINT_TO_POINT:
                    callers.setdefault(call.group, set()).add(rank)
        return {
            text: frozenset(
                self.world.members(text) & self.captures.keys() if self.world.group(text) else ranks
            )
            for text, ranks in callers.items()
        }

    @cached_property
    def absent(self) -> dict[int, CollectiveCall]:
        """The ranks that did not record the graph, each with a call that it must take part in."""
        absent: dict[int, CollectiveCall] = {}
        for calls in self.distinct_calls.values():
            for call in calls:
                for rank in self._partners(call) - self.captures.keys():
                    absent.setdefault(rank, call)
        return absent

    def _partners(self, call: CollectiveCall) -> frozenset[int]:
        if call.operation not in POINT_TO_POINT:
            return self.world.members(call.group)
        if call.operation in ONE_SIDED:
            return frozenset()
        group = self.world.group(call.group)
        peer = group.rank_at(call.peer) if group and call.peer is not None else None
        return frozenset({peer} & self.world.paths.keys()) if peer is not None else frozenset()
