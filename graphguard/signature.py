"""The words of graphguard as types: what was recorded of one captured graph.

All of them are immutable and hashable. They hold plain numbers and strings, never a tensor, so
that a signature can be kept, sent and written without keeping anything else alive.
"""

from __future__ import annotations

from enum import Enum
from functools import cached_property
from typing import Annotated, NamedTuple

import msgspec
from msgspec import Meta

from graphguard.batch import BatchDescriptor
from graphguard.digest import digest, encode
from graphguard.nodes import GraphNode

# The bounds hold for what is read from a file; msgspec checks them while it decodes.
Name = Annotated[str, Meta(max_length=256)]
Groups = Annotated[str, Meta(max_length=65_536)]
Natural = Annotated[int, Meta(ge=0, le=2**63 - 1)]
Dimensions = Annotated[tuple[Annotated[int, Meta(ge=-(2**62), le=2**62)], ...], Meta(max_length=64)]
Splits = Annotated[tuple[Natural, ...], Meta(max_length=65_536)]


class GraphMode(str, Enum):
    """Whether a graph holds a whole step or the pieces between attention calls."""

    FULL = "full"
    PIECEWISE = "piecewise"

    def __str__(self) -> str:
        return self.value


class GraphKey(msgspec.Struct, frozen=True, omit_defaults=True):
    """Which family a graph belongs to.

    Attributes:
        role: ``target``, ``drafter``, or the user's own name.
        mode: Full or piecewise.
        variant: What else tells families apart: LoRA count, micro-batches. Free text.
    """

    role: Name
    mode: GraphMode = GraphMode.FULL
    variant: Name = ""

    @property
    def label(self) -> str:
        """The role alone where that is all there is to say, else the whole key."""
        plain = self.mode is GraphMode.FULL and not self.variant
        return self.role if plain else str(self)

    def __str__(self) -> str:
        return f"{self.role}/{self.mode}" + (f"/{self.variant}" if self.variant else "")


class TensorSpec(msgspec.Struct, frozen=True):
    """A static tensor of a graph.

    Attributes:
        name: The name the capturing program gave it.
        shape: Sizes, in elements.
        dtype: As torch prints it, without ``torch.``: ``bfloat16``.
        stride: Strides, in elements.
        device: ``cpu`` or ``cuda:0``.
        address: Of the first element, in this process.
        nbytes: From the first element to the last, in bytes.
    """

    name: Name
    shape: Dimensions
    dtype: Name
    stride: Dimensions
    device: Name
    address: Natural
    nbytes: Natural


ONE_SIDED = frozenset({"put_signal", "signal", "wait_signal"})
"""Operations of which NCCL tells one side only; nothing of them is compared between ranks."""

POINT_TO_POINT = frozenset({"send", "recv"}) | ONE_SIDED
"""Operations whose two sides call differently; sends and receives are compared by pairing them."""


class CollectiveCall(msgspec.Struct, frozen=True, dict=True, omit_defaults=True):
    """One captured communication.

    Attributes:
        operation: As NCCL names it, in words: ``all_reduce``, ``all_gather``, ``send``.
        count: Elements, as NCCL counts them for this operation (what one rank contributes to an
            all-gather, what one rank gets of a reduce-scatter). None where ranks may differ.
        dtype: Of the elements.
        reduction: ``sum``, ``max`` … or None where nothing is reduced.
        root: Rank in the group that sends or receives for all, or None.
        peer: Rank in the group at the other end of a send or receive, or None.
        group: Name and global ranks of the communicator, the same text on all its ranks.
        group_size: Ranks in the group.
        group_rank: This process's rank in the group.
        coalesced: Whether the call was one of several issued as one.
        send_splits: Elements for each rank in an uneven all-to-all, else empty.
        recv_splits: Elements from each rank in an uneven all-to-all, else empty.
        seen_by: The recorder that saw the call.
    """

    operation: Name
    count: Natural | None
    dtype: Name
    reduction: Name | None
    root: int | None
    peer: int | None
    group: Groups
    group_size: Natural
    group_rank: int
    coalesced: bool = False
    send_splits: Splits = ()
    recv_splits: Splits = ()
    seen_by: Name = "c10d"

    @cached_property
    def shared(self) -> tuple[str, int | None, str, str | None, int | None, str, int, bool]:
        """The fields that must be equal on every rank of the group."""
        return (
            self.operation,
            self.count,
            self.dtype,
            self.reduction,
            self.root,
            self.group,
            self.group_size,
            self.coalesced,
        )

    @cached_property
    def shared_encoding(self) -> bytes:
        """What this call adds to the shared digest: nothing where its two sides differ."""
        return b"" if self.operation in POINT_TO_POINT else encode(self.shared)

    @cached_property
    def local_encoding(self) -> bytes:
        """What this call adds to the local digest."""
        own = (self.peer, self.group_rank, self.send_splits, self.recv_splits, self.seen_by)
        return encode((self.shared, own))

    def __str__(self) -> str:
        elements = "?" if self.count is None else self.count
        details = [f"{elements} {self.dtype}"]
        for name, value in (
            ("", self.reduction),
            ("root ", self.root),
            ("peer ", self.peer),
            ("", "coalesced" if self.coalesced else None),
        ):
            if value is not None:
                details.append(f"{name}{value}")
        return f"{self.operation}({', '.join(details)}) on {self.group}"


class Digests(NamedTuple):
    """The two digests of a signature, as 32 hexadecimal digits each."""

    shared: str
    local: str


class Signature(msgspec.Struct, frozen=True, dict=True):
    """What was recorded of one captured graph.

    Attributes:
        key: The family it belongs to.
        batch: The descriptor it was captured for.
        tensors: Its static tensors: inputs first, then outputs.
        num_inputs: How many of ``tensors`` are inputs.
        collectives: Its collective calls, in order.
        graph_kind: What kind of graph it is: ``torch.cuda`` or ``emulated``.
        nodes: Digest of the graph's nodes, or empty where nobody looked.
        memory_bytes: Device memory that the capture reserved. It depends on what the allocator
            had at hand, so no digest covers it.
        graph_nodes: The nodes themselves, those that are alike counted, sorted. Both digests leave
            them out: ``nodes`` stands for them in the local one.
        disagreements: What two recorders told differently of its calls, as sentences. Both digests
            leave them out: they are about the recording, not about the graph.
    """

    key: GraphKey
    batch: BatchDescriptor
    tensors: tuple[TensorSpec, ...] = ()
    num_inputs: int = 0
    collectives: tuple[CollectiveCall, ...] = ()
    graph_kind: str = ""
    nodes: str = ""
    memory_bytes: int = 0
    graph_nodes: tuple[GraphNode, ...] = ()
    disagreements: tuple[str, ...] = ()

    @property
    def inputs(self) -> tuple[TensorSpec, ...]:
        """The static tensors that the graph reads."""
        return self.tensors[: self.num_inputs]

    @cached_property
    def digests(self) -> Digests:
        """Both digests.

        The shared digest covers what NCCL requires to be equal on every rank: the key, the batch
        and the collective calls. Sends and receives are left out of it, because their two ends
        differ; so are tensors, because ranks may shard unevenly. The local digest covers all.
        """
        batch = self.batch
        head = encode(
            (
                self.key.role,
                self.key.mode.value,
                self.key.variant,
                (batch.num_reqs, batch.query_len, batch.num_tokens, int(batch.phase)),
            )
        )
        tensors = tuple(
            (t.name, t.shape, t.dtype, t.stride, t.device, t.address, t.nbytes)
            for t in self.tensors
        )
        own = encode((tensors, self.num_inputs, self.graph_kind, self.nodes))
        return Digests(
            shared=digest([head, *(call.shared_encoding for call in self.collectives)]),
            local=digest([head, own, *(call.local_encoding for call in self.collectives)]),
        )

    @property
    def shared_digest(self) -> str:
        """The digest of what must be equal on every rank."""
        return self.digests.shared

    @property
    def local_digest(self) -> str:
        """The digest of everything, addresses included."""
        return self.digests.local

    def __str__(self) -> str:
        return f"{self.key} {self.batch}"
