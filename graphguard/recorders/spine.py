"""The spine: the life of every graph of a process, whichever library tells it and however.

Two adapters tell it of torch. From 2.14 on torch has hooks (``spine_hooks.py``); before, the
methods of ``torch.cuda.CUDAGraph`` are wrapped (``spine_patches.py``). Emulated graphs are told by
the latter, those of cupy by a third one (``spine_cupy.py``). All tell the same, in this order and
on the thread that captures or replays:

    capture_begins -> watch.capturing -> watch.captured or watch.failed
    -> (watch.replay_begins -> watch.replay_ended)* -> watch.gone

What listens must not raise, save from ``replay_begins``: an error of that one stops the launch.
"""

from __future__ import annotations

import sys
import weakref
from collections.abc import Callable
from typing import Any, Protocol

from graphguard.errors import ConfigurationError

_ATTRIBUTE = "_graphguard"
_METHODS = ("capture_begin", "capture_end", "replay", "reset")


class Watch(Protocol):
    """What is kept of one capture of one graph. It must not keep the graph alive."""

    def capturing(self, graph: Any) -> None:  # noqa: ANN401 - a graph of any library
        """The capture is under way on the current stream."""

    def captured(self, graph: Any) -> None:  # noqa: ANN401
        """The capture has ended well. With torch's hooks its ``cudaGraph_t`` is still there."""

    def failed(self) -> None:
        """The capture has come to nothing."""

    def replay_begins(self, graph: Any, /) -> None:  # noqa: ANN401
        """The graph is about to be launched. An error raised here stops that."""

    def replay_ended(self, graph: Any, /) -> None:  # noqa: ANN401
        """The call that launches the graph has returned, or raised."""

    def gone(self) -> None:
        """The graph was reset or collected."""


class Listener(Protocol):
    """Who is told of the graphs of a process."""

    def capture_begins(self, before: Watch | None) -> Watch | None:
        """A capture begins on this thread.

        Args:
            before: What was returned when the same graph was captured before, if it was.

        Returns:
            Who is told the rest of this graph's life, or None if nobody wants to know.
        """


class Adapter(Protocol):
    """What tells the lives of the graphs of one library."""

    def install(self, listener: Listener) -> None:
        """Tell a listener of every graph that is captured from now on."""

    def uninstall(self) -> None:
        """Tell nobody any more."""


class Attachment:
    """What an adapter keeps on a graph while it is watched.

    Args:
        watch: Who is told of this graph.

    Attributes:
        handles: What has to be removed from the graph when the watch ends.
    """

    __slots__ = ("_handled", "handles", "watch")

    def __init__(self, watch: Watch) -> None:
        self.watch = watch
        self.handles: list[Callable[[], object]] = []
        self._handled = id(sys.exc_info()[1])

    def body_failed(self) -> bool:
        """Whether the captured code has raised: the capture is ended because of that.

        ``torch.cuda.graph`` ends the capture either way. An error that was already being handled
        when the capture began does not count.
        """
        error = sys.exc_info()[1]
        return error is not None and id(error) != self._handled

    def gone_with(self, graph: Any) -> None:  # noqa: ANN401
        """Tell the watch when the graph is collected, where its library does not."""
        finalizer = weakref.finalize(graph, self.watch.gone)
        # At the end of the process nothing is left to be told.
        finalizer.atexit = False
        self.handles.append(finalizer.detach)

    def detach(self) -> None:
        """Remove from the graph what was registered on it."""
        while self.handles:
            self.handles.pop()()


def begin(graph: Any, listener: Listener) -> Watch | None:  # noqa: ANN401
    """Tell a listener that a capture begins, and keep on the graph what it returns."""
    before = attached(graph)
    if before is not None:
        before.detach()
    watch = listener.capture_begins(before.watch if before else None)
    if watch is not None or before is not None:
        setattr(graph, _ATTRIBUTE, None if watch is None else Attachment(watch))
    return watch


def attached(graph: Any) -> Attachment | None:  # noqa: ANN401
    """Return what is kept on a graph, or None."""
    attachment: Attachment | None = getattr(graph, _ATTRIBUTE, None)
    return attachment


def torch_adapter(torch: Any) -> Adapter:  # noqa: ANN401 - the module
    """Return the adapter for this version of torch.

    Raises:
        ConfigurationError: If its CUDA graphs are not what either adapter was written for.
    """
    module = torch.cuda.graphs
    graph_class: Any = getattr(module, "CUDAGraph", None)
    if hasattr(module, "register_graph_capture_start_hook") and hasattr(
        graph_class, "register_replay_start_hook"
    ):
        from graphguard.recorders.spine_hooks import HookAdapter

        return HookAdapter(module)
    missing = [name for name in _METHODS if not callable(getattr(graph_class, name, None))]
    if missing:
        raise ConfigurationError(
            f"torch.cuda.CUDAGraph of torch {torch.__version__} has no {', '.join(missing)}",
            hint="use torch 2.9 to 2.15, or record captures with graphguard.record(...)",
        )
    from graphguard.recorders.spine_patches import PatchAdapter

    return PatchAdapter(graph_class)
