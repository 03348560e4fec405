"""A graph for the CPU that keeps the contract of a CUDA graph.

What it keeps: the operations of one run are recorded with their static tensors and not run;
replays run them in the same order into the same memory; no Python code of the program runs again;
shapes, addresses and constants are frozen; collectives are part of the graph, and replaying it is
a collective. What differs from CUDA is listed in ``docs/emulated-graphs.md``.
"""

from __future__ import annotations

import sys
import threading
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager

import torch
from torch.utils._python_dispatch import _disable_current_modes

from graphguard.digest import digest, encode
from graphguard.errors import CaptureError, NestedCapture
from graphguard.graphs.emulated_capture import CaptureMode, Observer
from graphguard.graphs.emulated_marks import ReplayMarks
from graphguard.graphs.emulated_steps import Step, replay, schedule_waits

KIND = "emulated"


class _ThreadState(threading.local):
    def __init__(self) -> None:
        self.capturing = False
        self.observers: list[Observer] = []


_thread = _ThreadState()


class EmulatedGraph:
    """A recorded run that can be replayed, with the surface of ``torch.cuda.CUDAGraph``.

    Fill it with :func:`capture`.
    """

    def __init__(self) -> None:
        self._steps: list[Step] | None = None
        self._capturing: ExitStack | None = None
        self._mode: CaptureMode | None = None
        self._handled = 0
        self._marks: ReplayMarks | None = None

    def capture_begin(self, **_options: object) -> None:
        """Record what this thread runs from now on, without running it. Use :func:`capture`.

        Args:
            **_options: What a CUDA graph takes, which means nothing on the CPU.

        Raises:
            NestedCapture: If a capture is running on this thread.
        """
        if _thread.capturing:
            raise NestedCapture(
                "a capture was begun inside another one on the same thread",
                hint="end the first capture before the second begins; capture the inner part only "
                "once and replay it outside",
            )
        self._forget()
        self._handled = id(sys.exc_info()[1])
        self._mode = CaptureMode(_thread.observers)
        with ExitStack() as undo:
            _thread.capturing = True
            undo.callback(setattr, _thread, "capturing", False)
            # Modes of the caller would see every stand-in that the capture works out shapes with.
            undo.enter_context(_disable_current_modes())
            undo.enter_context(self._mode)
            self._capturing = undo.pop_all()

    def capture_end(self) -> None:
        """End a capture. What was recorded is what a replay runs.

        Raises:
            CaptureError: If none is running into this graph.
        """
        capturing, mode = self._capturing, self._mode
        if capturing is None or mode is None:
            raise CaptureError(
                "a capture was ended that never began",
                hint="capture with: with graphguard.capture(graph): ...",
            )
        self._capturing = self._mode = None
        capturing.close()
        if (error := sys.exc_info()[1]) is not None and id(error) != self._handled:
            # The captured code has failed: half of it is nothing to replay.
            return
        schedule_waits(mode.steps)
        self._steps = mode.steps
        self._marks = ReplayMarks.of(self, mode.steps)

    @torch.compiler.disable  # type: ignore[untyped-decorator]
    def replay(self) -> None:
        """Run the recorded operations again, collectives included, and wait for their end.

        Raises:
            CaptureError: If nothing was captured yet, or a capture is running on this thread.
        """
        if self._steps is None:
            raise CaptureError(
                "an emulated graph was replayed that holds no capture",
                hint="capture into it first: with graphguard.capture(graph): ...",
            )
        if _thread.capturing:
            raise CaptureError(
                "an emulated graph was replayed during a capture on the same thread",
                hint="replay it before or after the capture; graphs do not nest",
            )
        if self._marks is None:
            replay(self._steps)
        else:
            self._marks.replay(self._steps)

    def reset(self) -> None:
        """Forget the recorded operations and let their memory go."""
        self._forget()

    @property
    def nbytes(self) -> int:
        """Bytes of the results that the graph keeps."""
        return sum(target.nbytes for step in self._steps or () for target in step.targets)

    @property
    def nodes(self) -> str:
        """Digest of the recorded operations: names, shapes and dtypes, in order."""
        return digest(encode(step.describe()) for step in self._steps or ())

    def __len__(self) -> int:
        return len(self._steps or ())

    def _forget(self) -> None:
        self._steps = None
        if self._marks is not None:
            self._marks.release(self)
            self._marks = None


@contextmanager
def capture(graph: EmulatedGraph) -> Iterator[EmulatedGraph]:
    """Record what runs inside into ``graph``, without running it.

    Raises:
        NestedCapture: If a capture is running on this thread.
        OperationNotRecordable: From the operation that a graph cannot hold.
    """
    graph.capture_begin()
    try:
        yield graph
    finally:
        graph.capture_end()


def is_capturing() -> bool:
    """Whether an emulated capture is running on this thread."""
    return _thread.capturing


def add_observer(observer: Observer) -> None:
    """Show every operation that is captured on this thread to ``observer`` first."""
    _thread.observers.append(observer)


def remove_observer(observer: Observer) -> None:
    """Stop showing operations to ``observer``."""
    _thread.observers.remove(observer)
