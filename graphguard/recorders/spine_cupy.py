"""The spine's adapter for cupy: the methods of its streams are wrapped.

``Stream.end_capture`` then returns a :class:`graphguard.graphs.cupy.CupyGraph`, since the class
that cupy returns cannot be changed, and its launches cannot be seen otherwise. The methods of that
class are wrapped, too.
"""

from __future__ import annotations

from typing import Any

from graphguard.graphs.cupy import CupyGraph, filling, look
from graphguard.recorders import cupy_nccl
from graphguard.recorders.spine import Listener, attached, begin
from graphguard.recorders.wrapping import Method, Wrapping


class CupyAdapter:
    """Tells the lives of graphs that streams of cupy capture.

    Args:
        stream_class: ``cupy.cuda.stream._BaseStream``, or a class with its surface.
        nccl: ``cupy.cuda.nccl``, or a module with its surface. Its communicators are recorded.
    """

    def __init__(self, stream_class: type, nccl: Any) -> None:  # noqa: ANN401
        self._class = stream_class
        self._nccl = nccl
        self._wrapping = Wrapping()
        self._listener: Listener | None = None
        self._graphs: dict[int, CupyGraph] = {}

    def install(self, listener: Listener) -> None:
        """Wrap the methods."""
        self._listener = listener
        self._wrapping.wrap(self._class, "begin_capture", self._begin_capture)
        self._wrapping.wrap(self._class, "end_capture", self._end_capture)
        self._wrapping.wrap(CupyGraph, "launch", _launch)
        self._wrapping.wrap(CupyGraph, "reset", _reset)
        cupy_nccl.install(self._nccl)

    def uninstall(self) -> None:
        """Take the wrappers away."""
        self._listener = None
        self._wrapping.undo()
        cupy_nccl.uninstall()

    def _begin_capture(self, original: Method) -> Method:
        def begin_capture(stream: Any, *args: Any, **kwargs: Any) -> Any:  # noqa: ANN401
            if self._listener is None:
                return original(stream, *args, **kwargs)
            graph = filling(stream) or CupyGraph()
            watch = begin(graph, self._listener)
            if watch is None:
                return original(stream, *args, **kwargs)
            try:
                result = original(stream, *args, **kwargs)
            except BaseException:
                watch.failed()
                raise
            self._graphs[stream.ptr] = graph
            graph.stream = stream.ptr
            watch.capturing(graph)
            return result

        return begin_capture

    def _end_capture(self, original: Method) -> Method:
        def end_capture(stream: Any, *args: Any, **kwargs: Any) -> Any:  # noqa: ANN401
            graph = self._graphs.pop(stream.ptr, None)
            attachment = None if graph is None else attached(graph)
            if graph is None or attachment is None:
                return original(stream, *args, **kwargs)
            failed = attachment.body_failed()
            if not failed and filling(stream) is None:
                look(graph)
            graph.stream = 0
            try:
                graph.captured = original(stream, *args, **kwargs)
            except BaseException:
                attachment.watch.failed()
                raise
            if failed:
                attachment.watch.failed()
            else:
                attachment.gone_with(graph)
                attachment.watch.captured(graph)
            return graph

        return end_capture


def _launch(original: Method) -> Method:
    def launch(graph: CupyGraph, stream: Any = None) -> Any:  # noqa: ANN401
        attachment = attached(graph)
        if attachment is None:
            return original(graph, stream)
        watch = attachment.watch
        watch.replay_begins(graph)
        try:
            return original(graph, stream)
        finally:
            watch.replay_ended(graph)

    return launch


def _reset(original: Method) -> Method:
    def reset(graph: CupyGraph) -> Any:  # noqa: ANN401
        attachment = attached(graph)
        if attachment is not None:
            attachment.detach()
            attachment.watch.gone()
        return original(graph)

    return reset
