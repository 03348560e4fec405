"""Which nodes of a graph communicate, and whether a recorder saw the call behind them.

Names of kernels are evidence and no record: NCCL runs a fused group as one kernel that is named
after one of its members. So what is reported are kernels that no recorded call can explain. The
table of kernels is data, with its sources: ``recorders/communication_kernels.json``.
"""

from __future__ import annotations

import functools
import re
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from fnmatch import translate
from pathlib import Path
from typing import NamedTuple

import msgspec

from graphguard.nodes import GraphNode, node_name
from graphguard.signature import CollectiveCall

_TABLE = Path(__file__).with_name("recorders") / "communication_kernels.json"
_ANY = "*"
_ANONYMOUS = "(anonymous namespace)::"


class Kernels(msgspec.Struct, frozen=True):
    """Kernels that the same calls lead to.

    Attributes:
        names: Patterns of their names, see the table.
        calls: Operations that lead to them; ``*`` for any.
        one_per_call: Whether a call leads to one of them at most.
    """

    names: tuple[str, ...]
    calls: tuple[str, ...]
    one_per_call: bool = False


class Family(msgspec.Struct, frozen=True):
    """Kernels of one library.

    Attributes:
        family: What people call it.
        sources: Where the names were read.
        kernels: The kernels, those that are named most exactly first.
        recorders: What ``seen_by`` of a call that leads to them begins with; empty for anything.
    """

    family: str
    sources: tuple[str, ...]
    kernels: tuple[Kernels, ...]
    recorders: tuple[str, ...] = ()


class _Table(msgspec.Struct):
    families: tuple[Family, ...]


class Match(NamedTuple):
    """What a communication kernel is."""

    family: Family
    kernels: Kernels

    def explained_by(self, operation: str, seen_by: str) -> bool:
        """Whether a call of an operation that a recorder saw can have led to such a kernel."""
        seen = not self.family.recorders or seen_by.startswith(self.family.recorders)
        return seen and (_ANY in self.kernels.calls or operation in self.kernels.calls)


class Unseen(NamedTuple):
    """Communication kernels of one name that no recorder saw the calls of.

    Attributes:
        family: What people call the library that they are of.
        name: The name of the function.
        nodes: How many nodes.
    """

    family: str
    name: str
    nodes: int

    def __str__(self) -> str:
        return f"{self.nodes} × {self.name} ({self.family})"


@functools.cache
def families() -> tuple[Family, ...]:
    """Return the table of communication kernels."""
    return msgspec.json.decode(_TABLE.read_bytes(), type=_Table).families


def function_name(kernel: str) -> str:
    """Return a kernel's name with its namespaces, without its arguments.

    Args:
        kernel: Its name as C++ writes it, with what it returns and its arguments, or as C does.
    """
    name = kernel.replace(_ANONYMOUS, "")
    return re.split(r"[<(]", name.removeprefix("void "), maxsplit=1)[0].strip()


def communication(node: GraphNode) -> Match | None:
    """Return what a communication kernel is, or None for every other node."""
    return _match(node.name) if node.kind == "kernel" else None


def kernel_match(name: str) -> Match | None:
    """Return what a communication kernel of this name is, or None for every other kernel."""
    return _match(node_name(name))


def explained(match: Match, call: CollectiveCall) -> bool:
    """Whether a recorded call can have led to a communication kernel."""
    return match.explained_by(call.operation, call.seen_by)


def unseen(nodes: Iterable[GraphNode], calls: Sequence[CollectiveCall]) -> tuple[Unseen, ...]:
    """Return the communication kernels that recorded calls do not explain, by name.

    A kernel is explained if any call can have led to it. Where a call leads to one kernel at most,
    there must be as many calls as kernels, too; calls that were issued as one may take several.
    """
    found: dict[Match, dict[str, int]] = {}
    for node in nodes:
        match = communication(node)
        if match is not None:
            names = found.setdefault(match, {})
            name = function_name(node.name)
            names[name] = names.get(name, 0) + node.count
    if not found:
        return ()
    # A graph has hundreds of calls of a few kinds.
    kinds = Counter((call.operation, call.seen_by, call.coalesced) for call in calls)
    return tuple(
        Unseen(match.family.family, name, count)
        for match, names in found.items()
        for name, count in _not_explained(match, names, kinds)
    )


def _not_explained(
    match: Match, names: dict[str, int], kinds: Mapping[tuple[str, str, bool], int]
) -> Iterable[tuple[str, int]]:
    explaining = 0
    counted = match.kernels.one_per_call
    for (operation, seen_by, coalesced), count in kinds.items():
        if match.explained_by(operation, seen_by):
            explaining += count
            counted = counted and not coalesced
    left = explaining if counted or not explaining else sum(names.values())
    # Which of several names the missing calls had is not known: the last ones are told.
    for name, count in sorted(names.items()):
        if count > left:
            yield name, count - left
        left = max(0, left - count)


@functools.cache
def _patterns() -> tuple[tuple[re.Pattern[str], bool, Match], ...]:
    return tuple(
        (re.compile(translate(name)), "::" in name, Match(family, kernels))
        for family in families()
        for kernels in family.kernels
        for name in kernels.names
    )


@functools.lru_cache(maxsize=16_384)
def _match(kernel: str) -> Match | None:
    function = function_name(kernel)
    last = function.rpartition("::")[2]
    for pattern, whole, match in _patterns():
        if pattern.match(function if whole else last):
            return match
    return None
