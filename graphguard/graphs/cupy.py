"""CUDA graphs of cupy.

``cupy.cuda.Graph`` is what ends a capture, and its class can be neither made nor changed. So a
graph here stands in front of one: it is there before the capture, has ``replay()`` and ``reset()``,
and hands everything else on. Seen with cupy 14.2; that it captures on a GPU has not been run.
"""

from __future__ import annotations

import weakref
from collections.abc import Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

import cupy

from graphguard import _core
from graphguard.breadcrumbs.process import wanted
from graphguard.errors import CaptureError, NestedCapture
from graphguard.graphs import contents

if TYPE_CHECKING:
    from graphguard.breadcrumbs.marking import Marks

KIND = "cupy"


class CupyGraph:
    """A graph of cupy, in front of the ``cupy.cuda.Graph`` that a capture returns.

    Fill it with :func:`capture`. With ``graphguard.install()``, ``Stream.end_capture`` returns one.

    Attributes:
        captured: The graph of cupy, or None before a capture has ended.
        stream: The handle of the stream that is captured into it now; else 0.
    """

    def __init__(self) -> None:
        self.captured: Any = None
        self.stream = 0
        self._graphguard_marks: Marks | None = None

    def launch(self, stream: Any = None) -> None:  # noqa: ANN401 - a stream of cupy
        """Launch the graph on a stream, or on the current one.

        Raises:
            CaptureError: If nothing was captured.
        """
        marks = self._graphguard_marks
        if marks is None:
            self._graph().launch(stream)
        else:
            marks.launched(lambda: self._graph().launch(stream))

    def replay(self) -> None:
        """Launch the graph on the current stream, as torch calls it."""
        self.launch()

    def reset(self) -> None:
        """Let go of what was captured; cupy frees it with the last reference."""
        if self._graphguard_marks is not None:
            self._graphguard_marks.retire()
            self._graphguard_marks = None
        self.captured = None

    def raw_cuda_graph(self) -> int:
        """Return the handle of the ``cudaGraph_t``, as torch calls it; 0 where cupy let it go."""
        return int(getattr(self._graph(), "graph", 0))

    def __getattr__(self, name: str) -> Any:  # noqa: ANN401 - what the graph of cupy has
        # What is private is looked up in the graph's own attributes only.
        if name.startswith("_") or self.__dict__.get("captured") is None:
            raise AttributeError(f"{type(self).__name__!r} object has no attribute {name!r}")
        return getattr(self.captured, name)

    def _graph(self) -> Any:  # noqa: ANN401
        if self.captured is None:
            raise CaptureError(
                "a graph of cupy was launched that holds no capture",
                hint="capture into it first: with graphguard.graphs.cupy.capture(graph): ...",
            )
        return self.captured


def owns(graph: object) -> bool:
    """Whether ``graph`` is a graph of cupy, in front of one or bare."""
    return isinstance(graph, CupyGraph | cupy.cuda.Graph)


@contextmanager
def capture(graph: CupyGraph, stream: Any = None, mode: int | None = None) -> Iterator[CupyGraph]:  # noqa: ANN401
    """Capture what runs on a stream into ``graph``.

    Args:
        graph: An empty graph.
        stream: The stream to capture; without it the current one, which must not be the default.
        mode: The mode of the capture; cupy's default is the relaxed one.

    Raises:
        NestedCapture: If the stream is being captured already.
    """
    stream = cupy.cuda.get_current_stream() if stream is None else stream
    if stream.is_capturing():
        raise NestedCapture(
            "a capture was begun on a stream of cupy that is being captured",
            hint="end the first capture before the second begins",
        )
    _filling[stream.ptr] = graph
    try:
        with stream:
            stream.begin_capture(mode)
            graph.stream = stream.ptr
            try:
                yield graph
            except BaseException:
                _give_up(stream)
                raise
            look(graph)
            captured = stream.end_capture()
    finally:
        graph.stream = 0
        _filling.pop(stream.ptr, None)
    graph.captured = captured.captured if isinstance(captured, CupyGraph) else captured


def stream_of(graph: object) -> int:
    """Return the handle of the stream that is captured into a graph now; else 0."""
    return graph.stream if isinstance(graph, CupyGraph) else 0


def look(graph: CupyGraph) -> None:
    """Remember what is being captured into a graph. Cupy does not keep it for later."""
    try:
        contents.forget(graph)
        found = contents.contents_of_stream(graph.stream)
        if found is not None:
            contents.keep(graph, found)
            if wanted():
                _mark(graph, found)
    except Exception as error:  # noqa: BLE001 - the program's capture goes first
        contents.tell(f"{type(error).__name__}: {error}")


def _mark(graph: CupyGraph, found: contents.GraphContents) -> None:
    """Add marks to what is being captured into a graph, now that it was looked at."""
    from graphguard.recorders import graph_marks

    capture = _core.capture_of(graph.stream)
    if capture is not None and capture[2] == contents.CAPTURE_ACTIVE:
        graph_marks.prepare()
        graph_marks.mark(graph, capture[1], found)


def filling(stream: Any) -> CupyGraph | None:  # noqa: ANN401
    """Return the graph that :func:`capture` is capturing a stream into, or None."""
    return _filling.get(stream.ptr)


def _give_up(stream: Any) -> None:  # noqa: ANN401
    """End a capture whose code has failed; that error is the one that matters."""
    try:
        stream.end_capture()
    except Exception as error:  # noqa: BLE001 - cupy's own, when the capture is invalid
        from graphguard.log import logger

        logger().debug("the capture of a stream of cupy ended with %r", error)


_filling: weakref.WeakValueDictionary[int, CupyGraph] = weakref.WeakValueDictionary()
