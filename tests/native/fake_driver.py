"""The stand-in for the CUDA driver, in Python: graphs are put together here and walked there."""

from __future__ import annotations

import ctypes
from collections.abc import Sequence
from pathlib import Path

from graphguard import _core
from graphguard.graphs.contents import GraphContents, contents_of_handle
from graphguard.nodes import GraphNode

Extent = tuple[int, int, int]
ONE: Extent = (1, 1, 1)

# CUgraphNodeType, CUmemorytype, CUgraphConditionalNodeType and CUstreamCaptureStatus of cuda.h
EMPTY, EVENT_WAIT, EVENT_RECORD = 5, 6, 7
HOST_MEMORY, DEVICE_MEMORY = 1, 2
IF, WHILE, SWITCH = 0, 1, 2
ACTIVE, INVALIDATED = 1, 2


class FakeDriver:
    """One of them in a process, so :meth:`reset` comes first.

    Args:
        library: The file of the target ``graphguard_fake_driver``.
    """

    def __init__(self, library: Path) -> None:
        self.library = library
        self._calls = ctypes.CDLL(str(library))
        for name in ("fake_graph", "fake_function", "fake_hidden_callback"):
            getattr(self._calls, name).restype = ctypes.c_void_p
        self._calls.fake_calls.restype = ctypes.c_uint64
        self._calls.fake_node.restype = ctypes.c_void_p
        self._calls.fake_num_nodes.restype = ctypes.c_size_t

    def reset(self) -> None:
        self._calls.fake_reset()

    def load(self, version: int = 13_020) -> _core.CudaDriver:
        """Open it as the driver of a version of CUDA."""
        self._calls.fake_set_version(version)
        return _core.CudaDriver(str(self.library))

    def walk(self, graph: int, version: int = 13_020) -> GraphContents:
        """Return what a driver of that version says of a graph."""
        return contents_of_handle(graph, self.load(version))

    def nodes(self, graph: int, version: int = 13_020) -> tuple[GraphNode, ...]:
        """Return its nodes, of which none is missing."""
        contents = self.walk(graph, version)
        assert contents.error == ""
        unreadable = (node.count for node in contents.nodes if node.name == "unreadable")
        assert contents.unreadable == sum(unreadable)
        return contents.nodes

    def refuse(self, function: str, every: int = 1) -> None:
        """Let every so many calls of a function fail; 0 for none."""
        self._calls.fake_refuse(function.encode(), ctypes.c_uint64(every))

    def calls(self, function: str) -> int:
        return int(self._calls.fake_calls(function.encode()))

    def capture_mode(self) -> int:
        return int(self._calls.fake_capture_mode())

    def capture(self, stream: int, capture_id: int, graph: int, status: int = ACTIVE) -> None:
        """Let a stream be captured into a graph."""
        self._calls.fake_set_capture(
            ctypes.c_void_p(stream), ctypes.c_uint64(capture_id), ctypes.c_void_p(graph), status
        )

    def graph(self) -> int:
        return int(self._calls.fake_graph())

    def function(self, name: str | None, *parameters: int) -> int:
        """Make a kernel; without a name, the driver refuses to tell it."""
        sizes = (ctypes.c_size_t * len(parameters))(*parameters)
        encoded = name.encode() if name is not None else None
        return int(self._calls.fake_function(encoded, sizes, ctypes.c_size_t(len(parameters))))

    def add_kernel(
        self,
        graph: int,
        function: int = 0,
        grid: Extent = ONE,
        block: Extent = ONE,
        shared_bytes: int = 0,
        *,
        kernel: int = 0,
    ) -> None:
        self._calls.fake_add_kernel(
            *map(ctypes.c_void_p, (graph, function, kernel)),
            (ctypes.c_uint * 3)(*grid),
            (ctypes.c_uint * 3)(*block),
            ctypes.c_uint(shared_bytes),
        )

    def add_memcpy(
        self, graph: int, source: int, target: int, extent: Extent = (1024, 1, 1)
    ) -> None:
        self._calls.fake_add_memcpy(
            ctypes.c_void_p(graph), source, target, *map(ctypes.c_size_t, extent)
        )

    def add_memset(self, graph: int, element_bytes: int, width: int, height: int = 1) -> None:
        self._calls.fake_add_memset(
            ctypes.c_void_p(graph), element_bytes, ctypes.c_size_t(width), ctypes.c_size_t(height)
        )

    def add_host(self, graph: int, function: int) -> None:
        self._calls.fake_add_host(ctypes.c_void_p(graph), ctypes.c_void_p(function))

    @property
    def exported_callback(self) -> int:
        """A function that the library exports."""
        address = ctypes.cast(self._calls.fake_exported_callback, ctypes.c_void_p).value
        assert address is not None
        return address

    @property
    def hidden_callback(self) -> int:
        """A function that the library keeps to itself."""
        return int(self._calls.fake_hidden_callback())

    def add_batch(self, graph: int, operations: Sequence[int]) -> None:
        numbers = (ctypes.c_int * len(operations))(*operations)
        self._calls.fake_add_batch(ctypes.c_void_p(graph), numbers, len(operations))

    def add_child(self, graph: int, child: int) -> None:
        self._calls.fake_add_child(ctypes.c_void_p(graph), ctypes.c_void_p(child))

    def add_conditional(self, graph: int, condition: int, bodies: Sequence[int]) -> None:
        handles = (ctypes.c_void_p * len(bodies))(*bodies)
        self._calls.fake_add_conditional(ctypes.c_void_p(graph), condition, handles, len(bodies))

    def add_node(self, graph: int, node_type: int) -> None:
        """Add a node of which only the type is known."""
        self._calls.fake_add_node(ctypes.c_void_p(graph), node_type)

    def node(self, graph: int, place: int) -> int:
        """Return the node that was added as this one, from 0."""
        return int(self._calls.fake_node(ctypes.c_void_p(graph), ctypes.c_size_t(place)))

    def num_nodes(self, graph: int) -> int:
        return int(self._calls.fake_num_nodes(ctypes.c_void_p(graph)))

    def add_edge(self, before: int, after: int) -> None:
        self._calls.fake_add_edge(ctypes.c_void_p(before), ctypes.c_void_p(after))

    def depends(self, node: int, on: int) -> bool:
        return bool(self._calls.fake_depends(ctypes.c_void_p(node), ctypes.c_void_p(on)))

    def is_leaf(self, node: int) -> bool:
        """Whether no node depends on this one."""
        return bool(self._calls.fake_is_leaf(ctypes.c_void_p(node)))

    def set_context(self, context: int) -> None:
        self._calls.fake_set_context(ctypes.c_void_p(context))

    def run(self, graph: int, stuck: int = 0) -> None:
        """Run a graph as a device does; one node, and what depends on it, may stand still."""
        self._calls.fake_run(ctypes.c_void_p(graph), ctypes.c_void_p(stuck))

    def shuffle(self, seed: int) -> None:
        """Return the nodes of every graph in another order from now on."""
        self._calls.fake_shuffle(ctypes.c_uint64(seed))
