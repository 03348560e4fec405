"""CUDA graphs without CUDA: torch's own Python class over a stand-in for its C++ half.

What runs is the file ``torch/cuda/graphs.py`` itself, of the torch that is installed or of a wheel.
Only ``torch._C._CUDAGraph`` is a stand-in: it counts launches, and what a capture holds is run at
once. Where no wheel is at hand, ``hooked_graphs.py`` stands in for the hooks of torch 2.14.
"""

from __future__ import annotations

import importlib.util
import itertools
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from types import ModuleType
from typing import Any

import torch
from typing_extensions import Self

from graphguard.recorders.spine import Adapter
from graphguard.recorders.spine_hooks import HookAdapter
from graphguard.recorders.spine_patches import PatchAdapter

_pools = itertools.count(1)


class NativeGraph:
    """Stands in for ``torch._C._CUDAGraph``, the C++ half.

    Attributes:
        launches: How often it was launched.
        invalidated: Whether the end of its capture fails, as after a forbidden operation.
    """

    launches: int
    invalidated = False
    _native_pool: Any
    _native_keeps: bool
    _has_graph_exec: bool

    def __new__(cls, keep_graph: bool = False) -> Self:
        graph = super().__new__(cls)
        graph.launches = 0
        graph._native_pool = None
        graph._native_keeps = keep_graph
        graph._has_graph_exec = False
        return graph

    def capture_begin(
        self, pool: tuple[int, int] | None = None, capture_error_mode: str = "global"
    ) -> None:
        self._native_pool = pool or (0, next(_pools))

    def capture_end_pre(self) -> None:
        if self.invalidated:
            raise RuntimeError("operation failed due to a previous error during capture")

    def capture_end_post(self) -> None: ...

    def capture_end(self) -> None:
        self.capture_end_pre()
        if not self._native_keeps:
            self.instantiate()

    def instantiate(self) -> None:
        self._has_graph_exec = True

    def replay(self) -> None:
        if not self._has_graph_exec:
            raise RuntimeError("Called CUDAGraph::replay without a preceding successful capture.")
        self.launches += 1

    def reset(self) -> None:
        self._has_graph_exec = False

    def raw_cuda_graph(self) -> int:
        raise RuntimeError("You cannot access the raw cudaGraph_t instance unless keep_graph")

    def pool(self) -> Any:
        return self._native_pool

    def pools(self) -> list[Any]:
        return [self._native_pool]


class Library:
    """A library of graphs, with the adapter that tells of them.

    Args:
        name: What a failing test shows.
        graph_class: Its class of graphs.
        adapter: Makes a new adapter.

    Attributes:
        has_pools: Whether its graphs are captured into pools that can be named.
        can_be_invalidated: Whether the end of a capture can fail.
        has_modes: Whether modes of torch are what they always are while it captures.
    """

    has_pools = can_be_invalidated = has_modes = True

    def __init__(self, name: str, graph_class: Any, adapter: Callable[[], Adapter]) -> None:
        self.name = name
        self.graph_class = graph_class
        self.adapter = adapter

    def new(self) -> Any:
        return self.graph_class()

    @contextmanager
    def capture(self, graph: Any, **options: Any) -> Iterator[None]:
        """Capture as ``torch.cuda.graph`` does: the end of a capture is told whatever happens."""
        graph.capture_begin(**options)
        try:
            yield
        finally:
            graph.capture_end()

    def invalidate(self, graph: Any, invalid: bool) -> None:
        """Let the end of the next capture into a graph fail, or not."""
        graph.invalidated = invalid

    def captured(self, body: Callable[[], object] = lambda: None, **options: Any) -> Any:
        graph = self.new()
        with self.capture(graph, **options):
            body()
        return graph

    def __repr__(self) -> str:
        return self.name


def of_file(name: str, path: Path) -> Library:
    """Return the graphs of a file that is some version of ``torch/cuda/graphs.py``."""
    module = _load(path)
    if hasattr(module, "register_graph_capture_start_hook"):
        return Library(name, module.CUDAGraph, lambda: HookAdapter(module))
    return Library(name, module.CUDAGraph, lambda: PatchAdapter(module.CUDAGraph))


def of_installed_torch() -> Library:
    """Return the graphs of the torch that is installed."""
    return of_file(f"torch {torch.__version__}", Path(torch.cuda.graphs.__file__))


def _load(path: Path) -> ModuleType:
    names = {
        "_CUDAGraph": NativeGraph,
        "_graph_pool_handle": lambda: (1, next(_pools)),
        "_cuda_isCurrentStreamCapturing": lambda: False,
        # Without this name, a torch that was built without CUDA puts placeholders there.
        "_CudaStreamBase": object,
    }
    native = vars(torch._C)
    before = {name: native[name] for name in names if name in native}
    native.update(names)
    try:
        return _run(path, f"torch.cuda._graphs_of_a_test_{len(sys.modules)}")
    finally:
        for name in names:
            native.pop(name)
        native.update(before)


def _run(path: Path, name: str) -> ModuleType:
    spec = importlib.util.spec_from_file_location(name, path)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module
