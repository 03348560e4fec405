"""The hooks of vLLM's breakable graphs: segments of a model, with eager code between them.

What was recorded of all segments of one capture is one signature, since they are launched as one
step. Collectives that the eager code makes are left out. They are in no graph: Python makes them
again in every replay, for what the batch of the step is then, and a signature would claim counts
that only held at the capture.
"""

from __future__ import annotations

import threading
from collections.abc import Iterator
from typing import Any

from graphguard.signature import CollectiveCall
from graphguard.vllm import capturing
from graphguard.vllm.captures import Choice, Piece, piece_of
from graphguard.vllm.collectives import CommunicatorRecorder
from graphguard.vllm.patches import Function, wrap


class _Segments:
    """What is recorded of one capture.

    Attributes:
        recorder: Of all calls, those of eager code included.
        eager: Where calls of eager code begin and end among them, for each break.
    """

    def __init__(self, recorder: CommunicatorRecorder) -> None:
        self.recorder = recorder
        self.eager: list[tuple[int, int]] = []

    def calls(self) -> Iterator[tuple[CollectiveCall, ...]]:
        """Yield the calls of each segment that is in a graph."""
        calls, begin = self.recorder.calls, 0
        for eager_begin, eager_end in self.eager:
            yield tuple(calls[begin:eager_begin])
            begin = eager_end
        yield tuple(calls[begin:])


class _Running(threading.local):
    def __init__(self) -> None:
        self.segments: _Segments | None = None


_running = _Running()


def install() -> None:
    """Put the hooks in place. Called again, it does nothing."""
    from vllm.compilation import breakable_cudagraph

    wrap(breakable_cudagraph.BreakableCUDAGraphWrapper, "_capture", _capture)
    wrap(
        breakable_cudagraph.BreakableCUDAGraphWrapper, "clear_graphs", capturing.forget_when_cleared
    )
    wrap(breakable_cudagraph.BreakableCUDAGraphCapture, "add_eager", _add_eager)


def _capture(original: Function) -> Function:
    def _capture(self: Any, entry: Any, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:  # noqa: ANN401
        with CommunicatorRecorder() as recorder:
            _running.segments = segments = _Segments(recorder)
            try:
                output = original(self, entry, args, kwargs)
            finally:
                _running.segments = None
        choice = Choice(_mode(), entry.batch_descriptor)
        try:
            tensors = capturing.tensors_of(args, kwargs)
            capturing.keep(self, choice, _pieces(entry.capture, segments, tensors, output))
        except Exception as error:  # noqa: BLE001 - the capture itself went well
            capturing.not_recorded(choice, error)
        return output

    return _capture


def _add_eager(original: Function) -> Function:
    def add_eager(self: Any, fn: Function) -> Any:  # noqa: ANN401
        segments = _running.segments
        if segments is None:
            return original(self, fn)
        begin = len(segments.recorder.calls)
        result = original(self, fn)
        segments.eager.append((begin, len(segments.recorder.calls)))
        return result

    return add_eager


def _mode() -> str:
    from vllm.forward_context import get_forward_context

    name: str = get_forward_context().cudagraph_runtime_mode.name
    return name


def _pieces(
    capture: Any,  # noqa: ANN401 - vLLM's own
    segments: _Segments,
    inputs: dict[str, Any],
    output: object,
) -> list[Piece]:
    """Describe the graphs of a capture; the first one has its inputs, the last its outputs."""
    if segments.recorder.failure is not None:
        raise segments.recorder.failure
    owners: list[Any] = [getattr(segment, "__self__", None) for segment in capture.segments]
    graphs = [owner for owner in owners if hasattr(owner, "replay")]
    last = len(graphs) - 1
    return [
        piece_of(graph, calls, inputs if place == 0 else {}, output if place == last else ())
        for place, (graph, calls) in enumerate(zip(graphs, segments.calls(), strict=True))
    ]
