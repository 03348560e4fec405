"""Graphs: what can be captured and replayed.

The rest of graphguard asks for no more than the protocol below. ``torch.cuda.CUDAGraph`` keeps it
as it is; on a machine without CUDA the emulated graph stands in. Importing this package imports
no torch; what needs torch imports it when it is called.
"""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager
from typing import TYPE_CHECKING, Any, Protocol, runtime_checkable

from graphguard.errors import ConfigurationError

if TYPE_CHECKING:
    from graphguard.graphs.contents import GraphContents
    from graphguard.nodes import GraphNode


@runtime_checkable
class Graph(Protocol):
    """A captured run that can be replayed."""

    def replay(self) -> None:
        """Launch the graph: what was captured runs again in the same memory."""

    def reset(self) -> None:
        """Forget what was captured and let its memory go."""


def new() -> Graph:
    """Make an empty graph for this machine: of CUDA where there is one, else an emulated one.

    A CUDA graph captures what runs on the GPU and nothing else: put model and inputs there.
    What stays on the CPU of a machine with CUDA needs a
    ``graphguard.graphs.emulated.EmulatedGraph``.

    Raises:
        ConfigurationError: If torch is not installed.
    """
    torch = _torch()
    if torch.cuda.is_available():
        graph: Graph = torch.cuda.CUDAGraph()
        return graph
    from graphguard.graphs import emulated

    return emulated.EmulatedGraph()


def capture(graph: Graph, **options: Any) -> AbstractContextManager[object]:  # noqa: ANN401
    """Record what runs inside into ``graph``, whichever kind it is.

    Args:
        graph: A graph from :func:`new`, a ``torch.cuda.CUDAGraph``, an emulated graph, or a
            ``graphguard.graphs.cupy.CupyGraph``.
        **options: For a CUDA graph, those of ``torch.cuda.graph``: ``pool``, ``stream``,
            ``capture_error_mode``. For one of cupy: ``stream`` and ``mode``.

    Raises:
        NestedCapture: If a capture is running already.
        CaptureError: If something inside cannot be captured.
    """
    capturing: AbstractContextManager[object] = _room_of(graph).capture(graph, **options)
    return capturing


def kind_of(graph: Graph) -> str:
    """Return what a signature calls this kind of graph: ``torch.cuda``, ``cupy`` … or a class."""
    # A graph of torch can only be there if torch is.
    room = _room_without_torch(graph)
    if room is None and "torch" in sys.modules:
        room = _room_of(graph, default=None)
    if room is not None:
        kind: str = room.KIND
        return kind
    return f"{type(graph).__module__}.{type(graph).__qualname__}"


def nodes_of(graph: Graph) -> str:
    """Return the digest of a graph's nodes, or nothing where nobody could look."""
    nodes = getattr(graph, "nodes", None)
    if isinstance(nodes, str):
        return nodes
    contents = _contents_of(graph)
    return contents.digest if contents is not None else ""


def graph_nodes_of(graph: Graph) -> tuple[GraphNode, ...]:
    """Return the nodes of a CUDA graph, or nothing where nobody could look."""
    contents = _contents_of(graph)
    return contents.nodes if contents is not None else ()


def capture_id_of(graph: Graph) -> int:
    """Return the number of the capture that is under way into a graph; 0 where it has none.

    The driver gives it out (``cuStreamGetCaptureInfo``), and it is the same for every library.
    """
    from graphguard import _core

    room = _room_without_torch(graph)
    if room is not None:
        return _core.capture_id(room.stream_of(graph))
    torch = sys.modules.get("torch")
    if torch is None or not torch.cuda.is_initialized():
        return 0
    return _core.capture_id(torch.cuda.current_stream().cuda_stream)


@contextmanager
def measured_memory(report: Callable[[int], None]) -> Iterator[None]:
    """Report how many bytes of device memory were reserved meanwhile: 0 where there is no CUDA."""
    torch = sys.modules.get("torch")
    if torch is None or not torch.cuda.is_initialized():
        yield
        return
    before = torch.cuda.memory_reserved()
    try:
        yield
    finally:
        # What a capture reserved that failed stays reserved.
        report(max(0, torch.cuda.memory_reserved() - before))


def _room_without_torch(graph: Graph) -> Any:  # noqa: ANN401 - a module of this package
    """Return the room of another library's graph, which is there if that is loaded."""
    room = sys.modules.get("graphguard.graphs.cupy")
    return room if room is not None and room.owns(graph) else None


def _contents_of(graph: Graph) -> GraphContents | None:
    # Not needed to import graphguard.
    from graphguard.graphs import contents

    return contents.contents_of(graph)


def _room_of(graph: Graph, default: Any = ...) -> Any:  # noqa: ANN401 - a module of this package
    if (room := _room_without_torch(graph)) is not None:
        return room
    _torch()
    # There is no emulated graph before its module is loaded. It is asked for first: one may stand
    # in for torch's class.
    emulated = sys.modules.get("graphguard.graphs.emulated")
    if emulated is not None and isinstance(graph, emulated.EmulatedGraph):
        return emulated
    from graphguard.graphs import torch_cuda

    if torch_cuda.owns(graph):
        return torch_cuda
    if default is ...:
        raise ConfigurationError(
            f"graphguard does not know how to capture into a {type(graph).__qualname__}",
            hint="capture it your own way inside graphguard.record(...), which takes any object "
            "with replay() and reset()",
        )
    return default


def _torch() -> Any:  # noqa: ANN401 - the module, which may be absent
    try:
        import torch
    except ImportError as error:
        raise ConfigurationError(
            "graphs need torch, which is not installed",
            hint="pip install torch, or graphguard[torch]; on a machine without a GPU the CPU "
            "build is enough",
        ) from error
    return torch
