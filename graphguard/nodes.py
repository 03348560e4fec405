"""What a captured graph holds: its nodes, those that are alike counted.

The driver returns the nodes of a graph in an order that it does not document, so the order carries
nothing here: nodes are sorted by what they are, and their digest is the same for any order.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Annotated

import msgspec
from msgspec import Meta

from graphguard.digest import digest, encode

MAX_NAME = 512
"""Characters of a name. Names of kernels made from C++ templates run to tens of thousands."""

MAX_PARAMETERS = 4096
"""Parameters of one kernel. CUDA 12.1 and newer allow 32,764 bytes of them."""

# The bounds hold for what is read from a file; msgspec checks them while it decodes.
_Kind = Annotated[str, Meta(max_length=64)]
_Name = Annotated[str, Meta(max_length=MAX_NAME)]
_Count = Annotated[int, Meta(ge=0, le=2**63 - 1)]
_Extent = tuple[_Count, _Count, _Count]
_Sizes = Annotated[tuple[_Count, ...], Meta(max_length=MAX_PARAMETERS)]

_DIGEST_DIGITS = 16

_NOTHING = encode(None)
_NO_SIZES = encode(())
_EXTENT = b"li%dei%dei%dee"


class GraphNode(msgspec.Struct, frozen=True, omit_defaults=True, gc=False):
    """Nodes of a graph that are alike.

    Attributes:
        kind: ``kernel``, ``memcpy``, ``memset``, ``host``, ``child``, ``empty``, ``event_wait``,
            ``event_record``, ``semaphore_signal``, ``semaphore_wait``, ``memory_allocation``,
            ``memory_free``, ``batch_memory_operation``, ``conditional``, or ``unknown 14`` for a
            number that this version does not know.
        name: Of a kernel or a host function, as C++ writes it; the direction of a memcpy
            (``device to device``); the operations of a batch; what a child graph or a conditional
            node holds (``3 nodes``, ``while: 3 nodes``); ``unreadable`` where the driver did not
            say. At most ``MAX_NAME`` characters.
        grid: Blocks of a kernel, in x, y and z.
        block: Threads of a block, in x, y and z.
        shared_bytes: Dynamic shared memory of a block, in bytes.
        parameter_bytes: Sizes of a kernel's parameters, in bytes, in their order; for a memcpy or
            a memset the bytes that it writes.
        count: How many nodes are like this.
    """

    kind: _Kind
    name: _Name = ""
    grid: _Extent | None = None
    block: _Extent | None = None
    shared_bytes: _Count = 0
    parameter_bytes: _Sizes = ()
    count: _Count = 1

    @property
    def encoding(self) -> bytes:
        """What a node adds to the digest of a graph; equal for nodes that are alike.

        The form is that of :func:`graphguard.digest.encode`, written out: a graph can hold
        thousands of different nodes, and this takes a quarter of the time.
        """
        kind, name = self.kind.encode(), self.name.encode()
        return b"l%d:%s%d:%s%s%si%de%se" % (
            len(kind),
            kind,
            len(name),
            name,
            _NOTHING if self.grid is None else _EXTENT % self.grid,
            _NOTHING if self.block is None else _EXTENT % self.block,
            self.shared_bytes,
            encode(self.parameter_bytes) if self.parameter_bytes else _NO_SIZES,
        )

    def __str__(self) -> str:
        details = []
        if self.grid is not None:
            details.append(f"grid {_extent(self.grid)}")
        if self.block is not None:
            details.append(f"block {_extent(self.block)}")
        if self.shared_bytes:
            details.append(f"{self.shared_bytes} B shared")
        name = f" {self.name}" if self.name else ""
        times = f"{self.count} × " if self.count != 1 else ""
        return f"{times}{self.kind}{name}" + (f" ({', '.join(details)})" if details else "")


def counted(nodes: Iterable[GraphNode]) -> tuple[GraphNode, ...]:
    """Count nodes that are alike together and sort them, so that no order is left."""
    return tuple(node for _, node in _totals(nodes))


def nodes_digest(nodes: Iterable[GraphNode]) -> str:
    """Return the digest of a graph's nodes, the same for any order; empty for no nodes."""
    return _digest(_totals(nodes))


def counted_and_digest(nodes: Iterable[GraphNode]) -> tuple[tuple[GraphNode, ...], str]:
    """Return both of the above, for the cost of one."""
    totals = _totals(nodes)
    return tuple(node for _, node in totals), _digest(totals)


def _totals(nodes: Iterable[GraphNode]) -> list[tuple[bytes, GraphNode]]:
    totals: dict[bytes, GraphNode] = {}
    for node in nodes:
        encoding = node.encoding
        first = totals.get(encoding)
        totals[encoding] = (
            node
            if first is None
            else msgspec.structs.replace(first, count=first.count + node.count)
        )
    return sorted(totals.items())


def _digest(totals: list[tuple[bytes, GraphNode]]) -> str:
    parts = [encoding + encode(node.count) for encoding, node in totals]
    return digest(parts) if parts else ""


def node_name(name: str) -> str:
    """Return a name that fits, with a digest of the whole in the place of what is cut off."""
    if len(name) <= MAX_NAME:
        return name
    end = f"…{digest([name.encode(errors='replace')])[:_DIGEST_DIGITS]}"
    return name[: MAX_NAME - len(end)] + end


def _extent(extent: tuple[int, int, int]) -> str:
    return "x".join(map(str, extent))
