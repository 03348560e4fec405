"""A call of NCCL, as one of the libraries that stand at NCCL recorded it."""

from __future__ import annotations

from enum import IntEnum

import msgspec


class Source(IntEnum):
    """Who recorded a call; the numbers are those of ``csrc/nccl/call_record.h``."""

    PLUGIN = 1
    INTERPOSER = 2

    @property
    def label(self) -> str:
        """What it is called in ``seen_by`` and in sentences."""
        return "plugin" if self is Source.PLUGIN else "interposer"


class Captured(IntEnum):
    """Whether a call went into a graph; the numbers are those of ``csrc/nccl/call_record.h``."""

    NO = 0
    YES = 1
    UNTOLD = 2


class NcclCall(msgspec.Struct, frozen=True, kw_only=True):
    """One call of NCCL.

    Attributes:
        source: Who recorded it.
        order: Its number in the log of that library.
        operation: In graphguard's words, as in :class:`graphguard.signature.CollectiveCall`.
        count: Elements, as the program gave them to NCCL.
        dtype: In torch's words; empty where nothing is transferred.
        reduction: Empty where nothing is reduced, or where the source does not tell.
        root: Rank in the communicator, or None.
        peer: Rank in the communicator, or None where there is none or the source does not tell.
        communicator: This process's handle of it, in the source's own numbers.
        communicator_hash: Equal on all its ranks, in the source's own numbers; 0 where unknown.
        rank: This process's rank in it, -1 where unknown.
        num_ranks: Its size, 0 where unknown.
        stream: The stream's address.
        group: Number of the outermost ``ncclGroupStart``, 0 outside of any.
        thread: Of the call, as ``threading.get_ident`` numbers it.
        capture_id: Of the stream's capture, 0 where unknown.
        captured: Whether it went into a graph.
        send_buffer: Address, 0 where the source does not tell.
        recv_buffer: Address, 0 where the source does not tell.
        user_tag: ``ncclCollConfig_t.userProfilerTag`` (NCCL 2.31), else 0.
    """

    source: Source
    operation: str
    order: int = 0
    count: int = 0
    dtype: str = ""
    reduction: str = ""
    root: int | None = None
    peer: int | None = None
    communicator: int = 0
    communicator_hash: int = 0
    rank: int = -1
    num_ranks: int = 0
    stream: int = 0
    group: int = 0
    thread: int = 0
    capture_id: int = 0
    captured: Captured = Captured.UNTOLD
    send_buffer: int = 0
    recv_buffer: int = 0
    user_tag: int = 0

    def __str__(self) -> str:
        details = [f"{self.count} {self.dtype}".strip(), self.reduction]
        details += [
            f"{name} {value}"
            for name, value in (("root", self.root), ("peer", self.peer))
            if value is not None
        ]
        return f"{self.operation}({', '.join(filter(None, details))}) of {self.num_ranks} ranks"
