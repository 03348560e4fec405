"""Marks in the CUDA graphs of a program, if they are asked for.

They are added just before a capture ends, after its nodes were looked at, so that the digest of
the nodes is the same with them and without. The driver permits adding nodes then, as it permits
looking (``cuStreamGetCaptureInfo``).
"""

from __future__ import annotations

import functools
import os
from typing import TYPE_CHECKING, Any

from graphguard.breadcrumbs.process import process_breadcrumbs, wanted
from graphguard.breadcrumbs.telling import tell
from graphguard.communication import communication

if TYPE_CHECKING:
    from graphguard.breadcrumbs.marking import CudaMarker
    from graphguard.graphs.contents import GraphContents

_marker: tuple[int, CudaMarker] | None = None
_stopped = False


def mark(graph: Any, handle: int, contents: GraphContents | None) -> None:  # noqa: ANN401 - a graph of any library
    """Add marks to a graph whose capture is about to end. Never raises.

    Args:
        graph: The graph as its library has it.
        handle: Its ``CUgraph``.
        contents: What it holds, if somebody has looked.
    """
    if _stopped or not wanted():
        return
    try:
        marker = _process_marker()
        if marker is not None:
            marker.mark(graph, handle, None if contents is None else _communicating(contents))
    except Exception as error:  # noqa: BLE001 - the program's capture goes first
        tell("graph", f"{type(error).__name__}: {error}")


def capture_failed(graph: Any, error: BaseException) -> None:  # noqa: ANN401
    """Take note that a capture could not be ended; with marks in it, no other graph gets any."""
    global _stopped  # noqa: PLW0603 - once for the process
    # Without marks there is nothing to suspect, and nothing was imported for them.
    if getattr(graph, "_graphguard_marks", None) is None:
        return
    from graphguard.breadcrumbs.marking import release

    release(graph)
    _stopped = True
    tell("capture", f"a capture with marks could not be ended, so no graph gets any: {error!r}")


def prepare() -> None:
    """Do what is needed once in a context, before a capture begins. Never raises."""
    try:
        marker = _process_marker()
        if marker is not None:
            marker.prepare()
    except Exception as error:  # noqa: BLE001 - the program's capture goes first
        tell("prepare", f"{type(error).__name__}: {error}")


def watch_launches(graph_class: Any) -> None:  # noqa: ANN401 - torch's, or one with its surface
    """Make a class of graphs count the launches of those with marks, if marks are wanted.

    The class stays as it becomes, once for all. Without marks it is left as it is.
    """
    if not wanted():
        return
    wrappers = {"capture_begin": _capture_begin, "replay": _replay, "reset": _reset}
    missing = [name for name in wrappers if not callable(getattr(graph_class, name, None))]
    if missing:
        tell("class", f"{graph_class.__qualname__} has no {', '.join(missing)}")
        return
    if hasattr(graph_class.replay, "__graphguard_counts__"):
        return
    for name, make in wrappers.items():
        original = getattr(graph_class, name)
        setattr(graph_class, name, functools.wraps(original)(make(original)))
    graph_class.replay.__graphguard_counts__ = True


def _capture_begin(original: Any) -> Any:  # noqa: ANN401
    def capture_begin(graph: Any, *args: Any, **kwargs: Any) -> Any:  # noqa: ANN401
        prepare()
        return original(graph, *args, **kwargs)

    return capture_begin


def _replay(original: Any) -> Any:  # noqa: ANN401
    def replay(graph: Any) -> Any:  # noqa: ANN401
        # Of a graph without marks; asking for an attribute that is not there takes longer.
        marks = graph.__dict__.get("_graphguard_marks")
        if marks is None:
            return original(graph)
        marks.launch()
        try:
            return original(graph)
        except BaseException:
            marks.withdraw()
            raise

    return replay


def _reset(original: Any) -> Any:  # noqa: ANN401
    def reset(graph: Any) -> Any:  # noqa: ANN401
        from graphguard.breadcrumbs.marking import release

        release(graph)
        return original(graph)

    return reset


def _process_marker() -> CudaMarker | None:
    """Return what marks graphs in this process, made by the first call."""
    global _marker  # noqa: PLW0603 - one for the process
    if _marker is None or _marker[0] != os.getpid():
        crumbs = process_breadcrumbs()
        if crumbs is None:
            return None
        from graphguard.breadcrumbs.marking import CudaMarker

        _marker = os.getpid(), CudaMarker(crumbs)
    return _marker[1]


def _communicating(contents: GraphContents) -> int:
    return sum(node.count for node in contents.nodes if communication(node) is not None)
