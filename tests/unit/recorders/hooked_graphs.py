"""A stand-in for ``torch.cuda.graphs`` of torch 2.14: the surface of its hooks, and no more.

It is written from that file. ``test_spine_wheels.py`` runs the same tests on the file itself, where
a wheel of that torch is at hand.
"""

from __future__ import annotations

import weakref
from collections import OrderedDict
from collections.abc import Callable
from contextlib import suppress
from typing import Any

from torch.utils.hooks import RemovableHandle
from typing_extensions import Self

from tests.unit.recorders.graph_libraries import NativeGraph

Hooks = OrderedDict[int, Callable[..., Any]]

_capture_start: Hooks = OrderedDict()
_capture_end: Hooks = OrderedDict()


def _register(hooks: Hooks, hook: Callable[..., Any]) -> RemovableHandle:
    handle = RemovableHandle(hooks)
    hooks[handle.id] = hook
    return handle


def _run_global(hooks: Hooks, graph: CUDAGraph) -> None:
    for hook in list(hooks.values()):
        # Torch swallows them, too.
        with suppress(Exception):
            hook(graph)


def register_graph_capture_start_hook(hook: Callable[[Any], None]) -> RemovableHandle:
    return _register(_capture_start, hook)


def register_graph_capture_end_hook(hook: Callable[[Any], None]) -> RemovableHandle:
    return _register(_capture_end, hook)


class _Retained:
    def __init__(self) -> None:
        self.callbacks: Hooks = OrderedDict()

    def fire(self) -> None:
        callbacks, self.callbacks = self.callbacks, OrderedDict()
        for callback in callbacks.values():
            callback()


class CUDAGraph(NativeGraph):
    _start: Hooks
    _end: Hooks
    _keep_graph: bool

    def __new__(cls, keep_graph: bool = False) -> Self:
        graph = super().__new__(cls, keep_graph)
        graph._keep_graph = keep_graph
        graph._start, graph._end = OrderedDict(), OrderedDict()
        graph._arm()
        return graph

    def _arm(self) -> None:
        self._retained = _Retained()
        self._finalizer = weakref.finalize(self, self._retained.fire)

    def register_replay_start_hook(self, hook: Callable[[Any], None]) -> RemovableHandle:
        return _register(self._start, hook)

    def register_replay_end_hook(self, hook: Callable[[Any], None]) -> RemovableHandle:
        return _register(self._end, hook)

    def register_destroy_callback(self, callback: Callable[[], None]) -> RemovableHandle:
        return _register(self._retained.callbacks, callback)

    def capture_begin(self, pool: Any = None, capture_error_mode: str = "global") -> None:
        super().capture_begin(pool=pool, capture_error_mode=capture_error_mode)
        _run_global(_capture_start, self)

    def capture_end(self) -> None:
        self.capture_end_pre()
        _run_global(_capture_end, self)
        if not self._keep_graph:
            self.instantiate()
        self.capture_end_post()

    def replay(self) -> None:
        if not self._has_graph_exec:
            self.instantiate()
        for hook in list(self._start.values()):
            hook(self)
        try:
            super().replay()
        finally:
            for hook in list(self._end.values()):
                hook(self)

    def reset(self) -> None:
        self._retained.fire()
        self._finalizer.detach()
        self._arm()
        super().reset()
