"""Looking at the nodes of CUDA graphs while they are captured.

A graph of torch is looked at just before its capture ends. The driver permits it then
(``cuStreamGetCaptureInfo``: all operations but destroying the graph and removing nodes), and it
works for every version of torch, whether the graph is kept or not.
"""

from __future__ import annotations

import functools
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from graphguard import _core
from graphguard.breadcrumbs.process import wanted
from graphguard.graphs.contents import (
    CAPTURE_ACTIVE,
    Driver,
    contents_of_handle,
    forget,
    keep,
    kept,
    tell,
)
from graphguard.recorders import graph_marks

_lock = threading.Lock()
_watchers = 0


@contextmanager
def watched_captures() -> Iterator[None]:
    """Look at every graph of torch whose capture ends inside, on any thread."""
    global _watchers  # noqa: PLW0603 - how many are inside, in the whole process
    import torch

    # A torch without CUDA captures nothing, and what stands in for its graphs tells its own nodes.
    if torch.version.cuda is None or _is_emulated(torch.cuda.CUDAGraph):
        yield
        return
    watch_class(torch.cuda.CUDAGraph, lambda: torch.cuda.current_stream().cuda_stream)
    with _lock:
        _watchers += 1
    try:
        yield
    finally:
        with _lock:
            _watchers -= 1


def watch_class(graph_class: Any, current_stream: Any, driver: Driver = _core) -> None:  # noqa: ANN401 - torch's
    """Make a class of graphs look at itself before a capture ends, while anybody watches.

    Args:
        graph_class: ``torch.cuda.CUDAGraph``. It stays as it becomes, once for all.
        current_stream: Returns the handle of the stream that is captured when a capture ends.
        driver: Whom to ask.
    """
    with _lock:
        graph_marks.watch_launches(graph_class)
        original = getattr(graph_class, "capture_end", None)
        if original is None:
            tell(f"{graph_class.__qualname__} has no capture_end")
            return
        if hasattr(original, "__graphguard_looks__"):
            return

        @functools.wraps(original)
        def capture_end(graph: Any, *args: Any, **kwargs: Any) -> Any:  # noqa: ANN401
            if _watchers:
                _look(graph, current_stream, driver)
                if wanted():
                    _mark(graph, current_stream, driver)
            try:
                return original(graph, *args, **kwargs)
            except BaseException as error:
                graph_marks.capture_failed(graph, error)
                raise

        capture_end.__graphguard_looks__ = True  # type: ignore[attr-defined]
        graph_class.capture_end = capture_end


def _is_emulated(graph_class: Any) -> bool:  # noqa: ANN401 - torch's, or what stands in for it
    # There is no emulated graph before its module is loaded.
    emulated = sys.modules.get("graphguard.graphs.emulated")
    return emulated is not None and issubclass(graph_class, emulated.EmulatedGraph)


def _look(graph: object, current_stream: Any, driver: Driver) -> None:  # noqa: ANN401
    """Remember what is being captured into a graph, or that it could not be seen."""
    try:
        forget(graph)
        capture = driver.capture_of(current_stream())
        if capture is None:
            tell("the driver does not say what is being captured")
        elif capture[2] == CAPTURE_ACTIVE:
            keep(graph, contents_of_handle(capture[1], driver))
        # Else the capture has failed already, and ending it will say why.
    except Exception as error:  # noqa: BLE001 - the program's capture goes first
        tell(f"{type(error).__name__}: {error}")


def _mark(graph: object, current_stream: Any, driver: Driver) -> None:  # noqa: ANN401
    """Add marks to what is being captured into a graph, now that it was looked at."""
    try:
        capture = driver.capture_of(current_stream())
        if capture is not None and capture[2] == CAPTURE_ACTIVE:
            graph_marks.mark(graph, capture[1], kept(graph))
    except Exception as error:  # noqa: BLE001 - the program's capture goes first
        tell(f"{type(error).__name__}: {error}")
