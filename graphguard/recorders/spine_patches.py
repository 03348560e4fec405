"""The spine's adapter for graphs without hooks: torch before 2.14, and emulated graphs.

The methods of the class are wrapped before anything is captured, so that a bound method which a
program keeps (vLLM's breakable graphs keep ``graph.replay``) is the wrapped one.
"""

from __future__ import annotations

from typing import Any

from graphguard.recorders.spine import Listener, attached, begin
from graphguard.recorders.wrapping import Method, Wrapping


class PatchAdapter:
    """Tells the lives of graphs by wrapping the methods of their class.

    Args:
        graph_class: ``torch.cuda.CUDAGraph``, or a class with its surface.
    """

    def __init__(self, graph_class: type) -> None:
        self._class = graph_class
        self._wrapping = Wrapping()
        self._listener: Listener | None = None

    def install(self, listener: Listener) -> None:
        """Wrap the methods."""
        self._listener = listener
        for name, make in (
            ("capture_begin", self._capture_begin),
            ("capture_end", _capture_end),
            ("replay", _replay),
            ("reset", _reset),
        ):
            self._wrapping.wrap(self._class, name, make)

    def uninstall(self) -> None:
        """Take the wrappers away. A bound method that is kept somewhere still has its own."""
        self._listener = None
        self._wrapping.undo()

    def _capture_begin(self, original: Method) -> Method:
        def capture_begin(graph: Any, *args: Any, **kwargs: Any) -> Any:  # noqa: ANN401
            if self._listener is None:
                return original(graph, *args, **kwargs)
            watch = begin(graph, self._listener)
            if watch is None:
                return original(graph, *args, **kwargs)
            try:
                result = original(graph, *args, **kwargs)
            except BaseException:
                watch.failed()
                raise
            watch.capturing(graph)
            return result

        return capture_begin


def _capture_end(original: Method) -> Method:
    def capture_end(graph: Any, *args: Any, **kwargs: Any) -> Any:  # noqa: ANN401
        attachment = attached(graph)
        if attachment is None:
            return original(graph, *args, **kwargs)
        failed = attachment.body_failed()
        try:
            result = original(graph, *args, **kwargs)
        except BaseException:
            attachment.watch.failed()
            raise
        if failed:
            attachment.watch.failed()
            return result
        attachment.gone_with(graph)
        attachment.watch.captured(graph)
        return result

    return capture_end


def _replay(original: Method) -> Method:
    def replay(graph: Any) -> Any:  # noqa: ANN401
        attachment = attached(graph)
        if attachment is None:
            return original(graph)
        watch = attachment.watch
        watch.replay_begins(graph)
        try:
            return original(graph)
        finally:
            watch.replay_ended(graph)

    return replay


def _reset(original: Method) -> Method:
    def reset(graph: Any) -> Any:  # noqa: ANN401
        attachment = attached(graph)
        if attachment is not None:
            attachment.detach()
            attachment.watch.gone()
        return original(graph)

    return reset
