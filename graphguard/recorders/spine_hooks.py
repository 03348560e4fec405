"""The spine's adapter for torch 2.14 and newer, which has hooks for the life of a CUDA graph.

Captures are told by global hooks. They swallow errors, so a replay is told by hooks of the graph
itself: an error of its replay-start hook stops the launch (``CUDAGraph.replay``, torch 2.14 to
2.15). No hook tells of a capture that CUDA invalidated; the graph's own ``capture_end`` does.
"""

from __future__ import annotations

import weakref
from collections.abc import Callable
from typing import Any

from graphguard.recorders.spine import Listener, attached, begin


class HookAdapter:
    """Tells the lives of graphs by torch's own hooks.

    Args:
        module: ``torch.cuda.graphs``, or one with its surface.
    """

    def __init__(self, module: Any) -> None:  # noqa: ANN401
        self._module = module
        self._handles: list[Any] = []
        self._listener: Listener | None = None

    def install(self, listener: Listener) -> None:
        """Register the global hooks."""
        self._listener = listener
        self._handles = [
            self._module.register_graph_capture_start_hook(self._started),
            self._module.register_graph_capture_end_hook(_ended),
        ]

    def uninstall(self) -> None:
        """Remove the global hooks. Those of graphs that live are left, with nobody behind them."""
        self._listener = None
        while self._handles:
            self._handles.pop().remove()

    def _started(self, graph: Any) -> None:  # noqa: ANN401 - torch's, or one with its surface
        if self._listener is None:
            return
        watch = begin(graph, self._listener)
        if watch is None:
            return
        graph.capture_end = _end_of(graph)
        watch.capturing(graph)


def _end_of(graph: Any) -> Callable[[], None]:  # noqa: ANN401
    """Return what stands in for ``graph.capture_end`` until the capture has ended.

    It must not keep the graph alive: torch wants graphs freed when the last reference goes, and
    not by the collector in the middle of another capture.
    """
    weak = weakref.ref(graph)

    def capture_end() -> None:
        graph = weak()
        assert graph is not None  # noqa: S101 - the caller has it
        graph.__dict__.pop("capture_end", None)
        try:
            graph.capture_end()
        except BaseException:
            if (attachment := attached(graph)) is not None:
                attachment.watch.failed()
            raise

    return capture_end


def _ended(graph: Any) -> None:  # noqa: ANN401
    attachment = attached(graph)
    if attachment is None:
        return
    watch = attachment.watch
    if attachment.body_failed():
        watch.failed()
        return
    watch.captured(graph)
    for handle in (
        graph.register_replay_start_hook(watch.replay_begins),
        graph.register_replay_end_hook(watch.replay_ended),
        graph.register_destroy_callback(watch.gone),
    ):
        attachment.handles.append(handle.remove)
