"""Whether uneven all-to-alls fit: what one rank sends, the other one must expect."""

from __future__ import annotations

from collections.abc import Iterator
from itertools import permutations

from graphguard.audit.catalogue import finding
from graphguard.audit.findings import Finding, Side
from graphguard.audit.graphs import Graph
from graphguard.audit.groups import Group
from graphguard.signature import CollectiveCall

_Calls = dict[int, list[tuple[int, CollectiveCall]]]


def mismatched_splits(graph: Graph) -> Iterator[Finding]:
    """Find uneven all-to-alls of which two ranks disagree, the first of each communicator."""
    by_group: dict[str, _Calls] = {}
    for rank in sorted(graph.captures):
        if not any(call.send_splits or call.recv_splits for call in graph.distinct_calls[rank]):
            continue
        for position, call in enumerate(graph.captures[rank].collectives):
            if call.send_splits or call.recv_splits:
                calls = by_group.setdefault(call.group, {})
                calls.setdefault(rank, []).append((position, call))
    for text, calls in by_group.items():
        group = graph.world.group(text)
        if group is not None:
            yield from _in_group(graph, group, calls)


def _in_group(graph: Graph, group: Group, calls: _Calls) -> Iterator[Finding]:
    shortest = min(map(len, calls.values()))
    for number in range(shortest):
        for sender, receiver in permutations(calls, 2):
            position, send = calls[sender][number]
            _, receive = calls[receiver][number]
            sent = _split(send.send_splits, group.index_of(receiver))
            expected = _split(receive.recv_splits, group.index_of(sender))
            if sent is None or expected is None or sent == expected:
                continue
            ranks = tuple(sorted((sender, receiver)))
            yield finding(
                "all-to-all-splits",
                ranks,
                f"rank {sender} sends {sent} elements to rank {receiver}, which expects {expected}",
                graph=graph.text,
                position=position,
                sides=(
                    Side((sender,), f"{send}, send splits {_listed(send.send_splits)}"),
                    Side((receiver,), f"{receive}, receive splits {_listed(receive.recv_splits)}"),
                ),
                evidence=graph.world.evidence(ranks),
            )
            return


def _split(splits: tuple[int, ...], index: int | None) -> int | None:
    return splits[index] if index is not None and index < len(splits) else None


def _listed(splits: tuple[int, ...]) -> str:
    shown = ", ".join(map(str, splits[:16]))
    return f"{shown}, ..." if len(splits) > 16 else shown
