"""The log of NCCL's calls, which the profiler plugin and the interposer each keep in C++.

The layout of a record is that of ``csrc/nccl/call_record.h``; a library that has another one is
refused. Nothing here needs torch, a GPU or NCCL itself.
"""

from __future__ import annotations

import ctypes
from typing import NamedTuple

from graphguard.errors import CaptureError, ConfigurationError
from graphguard.recorders.nccl_calls import Captured, NcclCall, Source

ABI = 1
"""``kAbiVersion`` of ``csrc/nccl/call_abi.h``."""

BY_THREAD = 0
"""Stands for the captures of the calling thread, where a capture's id cannot be had."""

_AT_ONCE = 256
# What begin and end return: CallLog::Status in csrc/nccl/call_log.h.
_DONE, _ALREADY, _UNKNOWN = 0, 1, 2


class CallRecord(ctypes.Structure):
    """A call as C++ records it."""

    _fields_ = [
        *[
            (name, ctypes.c_uint64)
            for name in (
                "order",
                "capture_id",
                "communicator",
                "communicator_hash",
                "count",
                "send_buffer",
                "recv_buffer",
                "stream",
                "group",
                "user_tag",
                "thread",
            )
        ],
        *[(name, ctypes.c_int32) for name in ("rank", "num_ranks", "root", "peer")],
        ("operation", ctypes.c_char * 24),
        ("dtype", ctypes.c_char * 16),
        ("reduction", ctypes.c_char * 16),
        ("source", ctypes.c_uint8),
        ("captured", ctypes.c_uint8),
        ("reserved", ctypes.c_uint8 * 6),
    ]


class Taken(NamedTuple):
    """What a log held of one recording, in order, and how many calls it had no room for."""

    calls: tuple[NcclCall, ...]
    dropped: int


class NcclLog:
    """The log of one library.

    Args:
        library: The plugin or the interposer, loaded.

    Raises:
        ConfigurationError: If it is another library, or of another version of graphguard.
    """

    def __init__(self, library: ctypes.CDLL) -> None:
        try:
            version = int(library.graphguard_nccl_abi())
            size = library.graphguard_nccl_record_size
        except AttributeError as error:
            raise ConfigurationError(
                f"{library._name} keeps no log of NCCL's calls: {error}",
                hint="it is not one of graphguard's libraries; install graphguard again",
            ) from error
        size.restype = ctypes.c_size_t
        if version != ABI or size() != ctypes.sizeof(CallRecord):
            raise ConfigurationError(
                f"{library._name} is of another version of graphguard: its log has the version "
                f"{version} and records of {size()} bytes, this one needs version {ABI} and "
                f"{ctypes.sizeof(CallRecord)} bytes",
                hint="install graphguard again, and name no library of another installation",
            )
        self._begin = library.graphguard_nccl_begin
        self._end = library.graphguard_nccl_end
        for function in (self._begin, self._end):
            function.argtypes = (ctypes.c_uint64,)
            function.restype = ctypes.c_int32
        self._take = library.graphguard_nccl_take
        self._take.argtypes = (
            ctypes.c_uint64,
            ctypes.POINTER(CallRecord),
            ctypes.c_size_t,
            ctypes.POINTER(ctypes.c_uint64),
        )
        self._take.restype = ctypes.c_size_t

    def begin(self, capture_id: int = BY_THREAD) -> None:
        """Record the calls of a capture from now on.

        Args:
            capture_id: As the driver numbers it (``cuStreamGetCaptureInfo``), or :data:`BY_THREAD`.

        Raises:
            CaptureError: If that capture is recorded already, or if there is no room for another.
        """
        status = self._begin(capture_id)
        if status == _ALREADY:
            raise CaptureError(
                f"the NCCL calls of {_named(capture_id)} are recorded already",
                hint="end the recording that goes on before another one of the same capture",
            )
        if status != _DONE:
            raise CaptureError(
                f"the NCCL calls of {_named(capture_id)} cannot be recorded: too many captures "
                "are being recorded, or there is no memory left",
                hint="end recordings that were begun",
            )

    def end(self, capture_id: int = BY_THREAD) -> None:
        """Record the calls of a capture no longer.

        Raises:
            CaptureError: If that capture was not being recorded.
        """
        if self._end(capture_id) == _UNKNOWN:
            raise CaptureError(
                f"the NCCL calls of {_named(capture_id)} were not being recorded",
                hint="end a recording once, and one by thread on the thread that began it",
            )

    def take(self, capture_id: int = BY_THREAD) -> Taken:
        """Return what was recorded of a capture and not taken yet, and forget it."""
        records = (CallRecord * _AT_ONCE)()
        dropped = ctypes.c_uint64(0)
        calls: list[NcclCall] = []
        lost = 0
        while True:
            taken = self._take(capture_id, records, _AT_ONCE, ctypes.byref(dropped))
            # The last answer comes from a log that has forgotten the recording.
            lost = max(lost, dropped.value)
            calls += [_call(record) for record in records[:taken]]
            if taken < _AT_ONCE:
                return Taken(tuple(calls), lost)


def _named(capture_id: int) -> str:
    return f"capture {capture_id}" if capture_id else "this thread's capture"


def _call(record: CallRecord) -> NcclCall:
    return NcclCall(
        source=Source(record.source),
        operation=_word(record.operation),
        order=record.order,
        count=record.count,
        dtype=_word(record.dtype),
        reduction=_word(record.reduction),
        root=_rank(record.root),
        peer=_rank(record.peer),
        communicator=record.communicator,
        communicator_hash=record.communicator_hash,
        rank=record.rank,
        num_ranks=record.num_ranks,
        stream=record.stream,
        group=record.group,
        thread=record.thread,
        capture_id=record.capture_id,
        captured=Captured(record.captured),
        send_buffer=record.send_buffer,
        recv_buffer=record.recv_buffer,
        user_tag=record.user_tag,
    )


def _word(text: bytes) -> str:
    return text.decode("ascii", "replace")


def _rank(number: int) -> int | None:
    return None if number < 0 else number
