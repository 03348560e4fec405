"""Whether every send has its receive: in the same order, of the same size and dtype."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from itertools import zip_longest
from typing import NamedTuple

from graphguard.audit.catalogue import finding
from graphguard.audit.findings import Finding, Side
from graphguard.audit.graphs import Graph
from graphguard.signature import ONE_SIDED, POINT_TO_POINT, CollectiveCall

_PAIRED = POINT_TO_POINT - ONE_SIDED


class _Channel(NamedTuple):
    """One direction between two ranks on one communicator."""

    sender: int
    receiver: int
    group: str


class _End(NamedTuple):
    """A send or receive and where it stands in the graph of its rank."""

    position: int
    call: CollectiveCall


class _Message(NamedTuple):
    """The send and the receive that are paired, by their number in the channel."""

    channel: _Channel
    number: int
    send: _End | None
    receive: _End | None


_Ends = dict[_Channel, list[_End]]


def unpaired(graph: Graph) -> Iterator[Finding]:
    """Find sends and receives that do not fit together, the first of each two ranks."""
    sends: _Ends = {}
    receives: _Ends = {}
    for rank in sorted(graph.captures):
        if any(call.operation in _PAIRED for call in graph.distinct_calls[rank]):
            yield from _collect(graph, rank, sends, receives)
    for channel in sorted({*sends, *receives}):
        if channel.sender in graph.captures and channel.receiver in graph.captures:
            yield from _compare(graph, channel, sends.get(channel, []), receives.get(channel, []))


def _collect(graph: Graph, rank: int, sends: _Ends, receives: _Ends) -> Iterator[Finding]:
    for position, call in enumerate(graph.captures[rank].collectives):
        group = graph.world.group(call.group)
        if call.operation not in _PAIRED or call.peer is None or group is None:
            continue
        peer = group.rank_at(call.peer)
        if peer is None:
            yield _outside(graph, rank, _End(position, call))
        elif call.operation == "send":
            sends.setdefault(_Channel(rank, peer, call.group), []).append(_End(position, call))
        else:
            receives.setdefault(_Channel(peer, rank, call.group), []).append(_End(position, call))


def _compare(
    graph: Graph, channel: _Channel, sends: Sequence[_End], receives: Sequence[_End]
) -> Iterator[Finding]:
    for number, (send, receive) in enumerate(zip_longest(sends, receives)):
        message = _Message(channel, number, send, receive)
        if receive is None:
            counts = f"{len(sends)} sends and {len(receives)} receives"
            yield _finding("unpaired-send", graph, message, counts)
            return
        if send is None:
            counts = f"{len(receives)} receives and {len(sends)} sends"
            yield _finding("unpaired-recv", graph, message, counts)
            return
        for rule, ours, theirs in (
            ("point-to-point-dtype", send.call.dtype, receive.call.dtype),
            ("point-to-point-count", send.call.count, receive.call.count),
        ):
            if ours != theirs:
                told = f"{ours} sent and {theirs} expected"
                yield _finding(rule, graph, message, told)
                return


def _finding(rule: str, graph: Graph, message: _Message, told: str) -> Finding:
    sender, receiver, _ = message.channel
    ranks = tuple(sorted({sender, receiver}))
    ends = ((sender, message.send), (receiver, message.receive))
    return finding(
        rule,
        ranks,
        f"from rank {sender} to rank {receiver}, message {message.number}: {told}",
        graph=graph.text,
        position=next(end.position for _, end in ends if end),
        sides=tuple(
            Side((rank,), f"{end.call} at call {end.position}" if end else "nothing")
            for rank, end in ends
        ),
        evidence=graph.world.evidence(ranks),
    )


def _outside(graph: Graph, rank: int, end: _End) -> Finding:
    return finding(
        f"unpaired-{end.call.operation}",
        (rank,),
        f"rank {rank} names peer {end.call.peer}, and its communicator has no such rank",
        graph=graph.text,
        position=end.position,
        sides=(Side((rank,), str(end.call)),),
        evidence=graph.world.evidence((rank,)),
    )
