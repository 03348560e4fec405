"""NCCL as a program calls it by ctypes, and what the interposer's log hands out.

The layout of a record is written down here once more, from the C header: graphguard's own Python
is not asked.
"""

from __future__ import annotations

import ctypes
from typing import Any

FLOAT32, BFLOAT16 = 7, 9
SUM, MAX, AVG = 0, 2, 4
CAPTURED_STREAM, OTHER_STREAM = 100, 1

_WIDE = ["order", "capture_id", "communicator", "communicator_hash", "count", "send_buffer"]
_WIDE += ["recv_buffer", "stream", "group", "user_tag", "thread"]
_NARROW = ["rank", "num_ranks", "root", "peer"]
_TEXTS = {"operation": 24, "dtype": 16, "reduction": 16}


class Record(ctypes.Structure):
    """``CallRecord`` of csrc/nccl/call_record.h."""

    _fields_ = [
        *((name, ctypes.c_uint64) for name in _WIDE),
        *((name, ctypes.c_int32) for name in _NARROW),
        *((name, ctypes.c_char * size) for name, size in _TEXTS.items()),
        ("source", ctypes.c_uint8),
        ("captured", ctypes.c_uint8),
        ("reserved", ctypes.c_uint8 * 6),
    ]


class Identifier(ctypes.Structure):
    """``ncclUniqueId``: 128 bytes, passed by value."""

    _fields_ = [("internal", ctypes.c_char * 128)]


class Configuration(ctypes.Structure):
    """``ncclCollConfig_t`` of NCCL 2.31."""

    _fields_ = [
        ("size", ctypes.c_size_t),
        ("rest", ctypes.c_byte * 48),
        ("user_profiler_tag", ctypes.c_uint64),
    ]


def address(value: int | None) -> ctypes.c_void_p:
    return ctypes.c_void_p(value)


def by_name() -> ctypes.CDLL:
    """As vLLM's pynccl does."""
    return ctypes.CDLL("libnccl.so.2")


def made(nccl: ctypes.CDLL, num_ranks: int = 2, rank: int = 0, seed: int = 1) -> ctypes.c_void_p:
    communicator = ctypes.c_void_p()
    identifier = Identifier()
    ctypes.memset(ctypes.byref(identifier), seed, 128)
    assert nccl.ncclCommInitRank(ctypes.byref(communicator), num_ranks, identifier, rank) == 0
    return communicator


def all_reduce(
    nccl: ctypes.CDLL, communicator: ctypes.c_void_p, count: int, stream: int = CAPTURED_STREAM
) -> int:
    buffers = address(0x1000), address(0x2000)
    result: int = nccl.ncclAllReduce(
        *buffers, ctypes.c_size_t(count), FLOAT32, SUM, communicator, address(stream)
    )
    return result


class Recording:
    """The calls that the interposer records while it is entered."""

    def __init__(self, interposer: ctypes.CDLL, capture_id: int = 0) -> None:
        self.calls: list[dict[str, Any]] = []
        self._library = interposer
        self._id = ctypes.c_uint64(capture_id)

    def __enter__(self) -> Recording:
        assert self._library.graphguard_nccl_begin(self._id) == 0
        return self

    def __exit__(self, *_error: object) -> None:
        assert self._library.graphguard_nccl_end(self._id) == 0
        records = (Record * 1000)()
        take = self._library.graphguard_nccl_take
        take.restype = ctypes.c_size_t
        taken = take(self._id, records, ctypes.c_size_t(1000), None)
        self.calls = [as_dict(record) for record in records[:taken]]


def as_dict(record: Record) -> dict[str, Any]:
    texts = {name: getattr(record, name).decode() for name in _TEXTS}
    numbers = {name: getattr(record, name) for name in (*_WIDE, *_NARROW, "source", "captured")}
    return {**texts, **numbers}


def counted(real: str, *names: str) -> dict[str, int]:
    stub = ctypes.CDLL(real)
    return {name: stub.stub_calls(name.encode()) for name in names}
