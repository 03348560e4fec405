"""Calls the installed profiler plugin as NCCL 2.28 does, for tests of what Python makes of it.

Sequences, threads, replays and other versions are tried in ``tests/native/test_nccl_plugin.py``.
"""

from __future__ import annotations

import ctypes

GROUP_API, COLLECTIVE_API, POINT_TO_POINT_API = 1 << 8, 1 << 9, 1 << 10

_INIT = ctypes.CFUNCTYPE(
    ctypes.c_int,
    ctypes.POINTER(ctypes.c_void_p),
    ctypes.c_uint64,
    ctypes.POINTER(ctypes.c_int),
    ctypes.c_char_p,
    ctypes.c_int,
    ctypes.c_int,
    ctypes.c_int,
    ctypes.c_void_p,
)
_START = ctypes.CFUNCTYPE(
    ctypes.c_int, ctypes.c_void_p, ctypes.POINTER(ctypes.c_void_p), ctypes.c_void_p
)
_ONE_POINTER = ctypes.CFUNCTYPE(ctypes.c_int, ctypes.c_void_p)


class _GroupApi(ctypes.Structure):
    _fields_ = [("captured", ctypes.c_bool), ("depth", ctypes.c_int)]


class _CollectiveApi(ctypes.Structure):
    _fields_ = [
        ("function", ctypes.c_char_p),
        ("count", ctypes.c_size_t),
        ("data_type", ctypes.c_char_p),
        ("root", ctypes.c_int),
        ("stream", ctypes.c_void_p),
        ("captured", ctypes.c_bool),
    ]


class _Members(ctypes.Union):
    _fields_ = [
        ("group", _GroupApi),
        ("collective", _CollectiveApi),
        ("bytes", ctypes.c_uint8 * 88),
    ]


class _Event(ctypes.Structure):
    _fields_ = [
        ("type", ctypes.c_uint64),
        ("parent", ctypes.c_void_p),
        ("rank", ctypes.c_int),
        ("of", _Members),
    ]


class _Profiler(ctypes.Structure):
    _fields_ = [
        ("name", ctypes.c_char_p),
        ("init", _INIT),
        ("start_event", _START),
        ("stop_event", _ONE_POINTER),
        ("record_event_state", ctypes.c_void_p),
        ("finalize", _ONE_POINTER),
    ]


class Communicator:
    """A communicator as NCCL tells the plugin of it."""

    def __init__(
        self, plugin: ctypes.CDLL, rank: int = 1, num_ranks: int = 4, key: int = 0xABC
    ) -> None:
        self.mask = ctypes.c_int(0)
        self._profiler = _Profiler.in_dll(plugin, "ncclProfiler_v5")
        self._context = ctypes.c_void_p()
        context, mask = ctypes.byref(self._context), ctypes.byref(self.mask)
        assert self._profiler.init(context, key, mask, b"", 1, num_ranks, rank, None) == 0

    def collective(
        self,
        function: bytes = b"AllReduce",
        count: int = 1,
        data_type: bytes = b"ncclFloat32",
        *,
        root: int = 0,
        captured: bool = True,
        group_depth: int = 1,
    ) -> None:
        """Call a collective outside of any group, or as the first one in a group."""
        group = _Event(type=GROUP_API)
        group.of.group = _GroupApi(captured, group_depth)
        self._start(group)
        event = _Event(type=COLLECTIVE_API)
        event.of.collective = _CollectiveApi(function, count, data_type, root, None, captured)
        self._start(event)

    def finalize(self) -> None:
        """End it."""
        assert self._profiler.finalize(self._context) == 0

    def _start(self, event: _Event) -> None:
        handle = ctypes.c_void_p()
        result = self._profiler.start_event(
            self._context, ctypes.byref(handle), ctypes.addressof(event)
        )
        assert (result, handle.value) == (0, None)
