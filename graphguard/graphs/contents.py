"""What CUDA graphs hold, as the driver tells it, and what was seen of them before.

A graph that is captured does not outlive its capture everywhere: torch destroys it unless the
graph was made with ``keep_graph``. So what was seen of it is kept for as long as its object lives.

Nothing here raises: a graph whose nodes cannot be seen is captured all the same, and the log says
so once.
"""

from __future__ import annotations

import weakref
from contextlib import suppress
from typing import NamedTuple, Protocol

from graphguard import _core
from graphguard.log import logger
from graphguard.nodes import GraphNode, counted_and_digest, node_name

_Extent = tuple[int, int, int]
_Node = tuple[str, str, _Extent | None, _Extent | None, int, tuple[int, ...], int]


class GraphContents(NamedTuple):
    """What a graph holds.

    Attributes:
        nodes: Its nodes, sorted and counted.
        digest: Of the nodes.
        unreadable: Nodes of which the driver did not say all.
        error: Why nodes are missing; empty if none is. Then there are no nodes here and no digest,
            for a part of a graph would be taken for the whole.
    """

    nodes: tuple[GraphNode, ...] = ()
    digest: str = ""
    unreadable: int = 0
    error: str = ""


class Driver(Protocol):
    """What is asked of the CUDA driver: the module ``_core``, or a ``_core.CudaDriver``."""

    def walk_graph(self, graph: int, /) -> tuple[list[_Node], int, str]:
        """See ``_core.walk_graph``."""

    def capture_of(self, stream: int, /) -> tuple[int, int, int] | None:
        """See ``_core.capture_of``."""


CAPTURE_ACTIVE = 1
"""The status of a stream that is being captured: ``CU_STREAM_CAPTURE_STATUS_ACTIVE``."""

_kept: weakref.WeakKeyDictionary[object, GraphContents] = weakref.WeakKeyDictionary()
_told = False


def contents_of_handle(handle: int, driver: Driver = _core) -> GraphContents:
    """Return what a graph holds.

    Args:
        handle: Its ``cudaGraph_t``, which is a ``CUgraph``. It must be alive, and no other thread
            may change it meanwhile.
        driver: Whom to ask.
    """
    nodes, unreadable, error = driver.walk_graph(handle)
    if error:
        return GraphContents(unreadable=unreadable, error=error)
    found, digest = counted_and_digest(
        GraphNode(kind, node_name(name), grid, block, shared_bytes, sizes, count)
        for kind, name, grid, block, shared_bytes, sizes, count in nodes
    )
    return GraphContents(found, digest, unreadable)


def contents_of_stream(stream: int, driver: Driver = _core) -> GraphContents | None:
    """Return what has been captured so far of a stream; None if it is not being captured.

    Args:
        stream: A ``cudaStream_t`` that this thread captures.
        driver: Whom to ask.
    """
    capture = driver.capture_of(stream)
    if capture is None or capture[2] != CAPTURE_ACTIVE:
        return None
    return contents_of_handle(capture[1], driver)


def keep(graph: object, contents: GraphContents) -> None:
    """Remember what a graph holds, for as long as its object lives."""
    if contents.error:
        tell(contents.error)
    try:
        _kept[graph] = contents
    except TypeError as error:
        tell(f"a {type(graph).__qualname__} cannot be remembered: {error}")


def kept(graph: object) -> GraphContents | None:
    """Return what was remembered of a graph."""
    try:
        return _kept.get(graph)
    except TypeError:
        # It cannot be a key, so nothing was ever remembered of it.
        return None


def forget(graph: object) -> None:
    """Forget what was remembered of a graph, which is captured again."""
    with suppress(TypeError):
        _kept.pop(graph, None)


def contents_of(graph: object, driver: Driver = _core) -> GraphContents | None:
    """Return what a graph holds; None where nobody could look.

    What was remembered counts first. Else it is asked for its handle by ``raw_cuda_graph()``, which
    torch answers for graphs that were made with ``keep_graph`` only.
    """
    found = kept(graph)
    if found is not None:
        return found
    raw = getattr(graph, "raw_cuda_graph", None)
    if raw is None:
        return None
    try:
        handle = raw()
    except RuntimeError:
        # What torch says of a graph that it did not keep.
        return None
    return contents_of_handle(handle, driver) if isinstance(handle, int) and handle else None


def tell(reason: str) -> None:
    """Say why nodes are missing, once in a process."""
    global _told  # noqa: PLW0603 - once in a process
    if not _told:
        _told = True
        logger().warning("the nodes of a CUDA graph are not recorded: %s; said once", reason)
