"""A stand-in for cupy: streams, graphs and NCCL communicators without a GPU.

It has the surface of cupy 14.2 that graphguard uses. ``test_cupy_surface.py`` compares it with the
real package where that is installed.
"""

from __future__ import annotations

import itertools
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from types import ModuleType
from typing import Any
from unittest import mock

from graphguard import _core

_handles = itertools.count(0x1000, 16)


class Graph:
    """Stands in for ``cupy.cuda.Graph``, whose class cannot be changed."""

    def __init__(self) -> None:
        self.launches = 0
        # A handle that means something would be looked into where there is a driver.
        self.graph = 0
        self.graphExec = next(_handles)

    def launch(self, stream: Any = None) -> None:
        self.launches += 1
        self.launched_on = stream

    def upload(self, stream: Any = None) -> None: ...


class BaseStream:
    """Stands in for ``cupy.cuda.stream._BaseStream``.

    Attributes:
        invalidated: Whether the end of a capture fails.
    """

    invalidated = False

    def __init__(self) -> None:
        self.ptr = next(_handles)
        self._capturing = False

    def begin_capture(self, mode: int | None = None) -> None:
        self._capturing = True

    def end_capture(self) -> Graph:
        self._capturing = False
        if self.invalidated:
            raise RuntimeError("cudaErrorStreamCaptureInvalidated: previous error during capture")
        return Graph()

    def is_capturing(self) -> bool:
        return self._capturing

    def __enter__(self) -> BaseStream:
        return self

    def __exit__(self, *_: object) -> None: ...


class NcclCommunicator:
    """Stands in for ``cupy.cuda.nccl.NcclCommunicator``.

    Attributes:
        called: What reached NCCL, so to say.
    """

    called: list[tuple[Any, ...]]

    def __new__(cls, *_: object) -> Any:
        communicator = super().__new__(cls)
        communicator.called = []
        return communicator

    def __init__(self, ndev: int, commId: tuple[int, ...], rank: int) -> None:
        self._size, self._rank = ndev, rank

    @staticmethod
    def _initAll(comms: list[Any], ndev: int, devlist: list[int]) -> None:
        for rank, communicator in enumerate(comms):
            communicator._size, communicator._rank = ndev, rank

    def rank_id(self) -> int:
        return self._rank

    def size(self) -> int:
        return self._size

    def allReduce(self, *args: int) -> str:
        self.called.append(("allReduce", *args))
        return "returned"

    def reduce(self, *args: int) -> None:
        self.called.append(("reduce", *args))

    def broadcast(self, *args: int) -> None:
        self.called.append(("broadcast", *args))

    def bcast(self, *args: int) -> None:
        self.called.append(("bcast", *args))

    def reduceScatter(self, *args: int) -> None:
        self.called.append(("reduceScatter", *args))

    def allGather(self, *args: int) -> None:
        self.called.append(("allGather", *args))

    def send(self, *args: int) -> None:
        self.called.append(("send", *args))

    def recv(self, *args: int) -> None:
        self.called.append(("recv", *args))


def _modules() -> dict[str, ModuleType]:
    names = ("cupy", "cupy.cuda", "cupy.cuda.stream", "cupy.cuda.nccl")
    modules: dict[str, Any] = {name: ModuleType(name) for name in names}
    cuda = modules["cupy.cuda"]
    modules["cupy"].cuda = cuda
    cuda.Graph = Graph
    cuda.stream = modules["cupy.cuda.stream"]
    cuda.stream._BaseStream = BaseStream
    cuda.get_current_stream = BaseStream
    cuda.nccl = modules["cupy.cuda.nccl"]
    cuda.nccl.NcclCommunicator = NcclCommunicator
    cuda.nccl.groupStart = lambda: None
    cuda.nccl.groupEnd = lambda: None
    return modules


_LOADED = ("graphguard.graphs.cupy", "graphguard.recorders.spine_cupy")


@contextmanager
def stand_in_cupy() -> Iterator[ModuleType]:
    """Let ``import cupy`` find the stand-in, and graphguard's room for it be loaded with it."""
    modules = _modules()
    before = {
        name: sys.modules.pop(name)
        for name in list(sys.modules)
        if name in _LOADED or name.partition(".")[0] == "cupy"
    }
    sys.modules.update(modules)
    try:
        # Where there is a CUDA driver, it must not be asked about streams that are none.
        with (
            mock.patch.object(_core, "capture_id", return_value=0),
            mock.patch.object(_core, "capture_of", return_value=None),
        ):
            yield modules["cupy"]
    finally:
        for name in (*modules, *_LOADED):
            sys.modules.pop(name, None)
        sys.modules.update(before)
        for package in ("graphguard.graphs", "graphguard.recorders"):
            for attribute in ("cupy", "spine_cupy"):
                vars(sys.modules[package]).pop(attribute, None)
