"""The recorder for torch.distributed: every c10d collective of a run, in order.

It stands in the dispatcher, so it sees what a program calls however it imported it, functional
collectives and compiled code included, and it works the same while a CUDA graph is captured, in
an emulated capture and in an eager run. Collectives that never pass the dispatcher (vLLM's
pynccl, custom all-reduce) are not seen by it.

The reduction of a c10d operator is an opaque object there. It is read one step earlier, from the
options given to the process group's own method; a collective issued from C++ has no such step and
its reduction is recorded as ``unknown``.
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Mapping
from contextlib import ExitStack
from types import TracebackType
from typing import Any

from torch._C._distributed_c10d import ProcessGroup
from torch._ops import OpOverload
from torch.utils._python_dispatch import (
    TorchDispatchMode,
    _get_current_dispatch_mode_stack,
    _pop_mode,
    _push_mode,
)

from graphguard.graphs import emulated
from graphguard.recorders.c10d_calls import UNKNOWN_REDUCTION, name_reduction, read_calls
from graphguard.signature import CollectiveCall


class CollectiveRecorder:
    """Records the collective calls made on this thread while it is entered.

    Attributes:
        calls: What was recorded so far, in order.
        failure: The first error of the recorder itself, or None. It is kept here and not raised:
            the program that is being recorded must go on as it would have.
    """

    def __init__(self) -> None:
        self.calls: list[CollectiveCall] = []
        self.failure: Exception | None = None
        self._mode = _RecordingMode(self._observe)
        self._undo = ExitStack()

    def __enter__(self) -> CollectiveRecorder:
        with ExitStack() as undo:
            _reductions.install()
            undo.callback(_reductions.uninstall)
            # An emulated capture switches modes off and shows its operations to observers instead.
            emulated.add_observer(self._observe)
            undo.callback(emulated.remove_observer, self._observe)
            # A mode above the emulated capture would see everything twice.
            if not emulated.is_capturing():
                undo.enter_context(self._mode)
            self._undo = undo.pop_all()
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self._undo.__exit__(kind, error, traceback)

    def _observe(self, func: OpOverload, args: tuple[Any, ...], kwargs: Mapping[str, Any]) -> None:
        try:
            self.calls += read_calls(func, args, kwargs, _reductions.current())
        except Exception as error:  # noqa: BLE001 - kept for whoever reads the record
            self.failure = self.failure or error


class _RecordingMode(TorchDispatchMode):
    """Passes every operator on, and shows it to an observer first."""

    def __init__(
        self, observe: Callable[[OpOverload, tuple[Any, ...], Mapping[str, Any]], None]
    ) -> None:
        super().__init__()  # type: ignore[no-untyped-call]
        self._observe = observe

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        # A capture may end while a mode is on that the program entered inside of it.
        above = []
        while self in _get_current_dispatch_mode_stack()[:-1]:
            above.append(_pop_mode())
        super().__exit__(kind, error, traceback)  # type: ignore[no-untyped-call]
        for mode in reversed(above):
            _push_mode(mode)

    @classmethod
    def ignore_compile_internals(cls) -> bool:
        # Without this, torch.compile runs a compiled model eagerly while the mode is on, and
        # recording would change what is captured.
        return True

    def __torch_dispatch__(
        self,
        func: OpOverload,
        types: tuple[type, ...],
        args: tuple[Any, ...] = (),
        kwargs: Mapping[str, Any] | None = None,
    ) -> Any:  # noqa: ANN401 - whatever the operator returns
        kwargs = kwargs or {}
        self._observe(func, args, kwargs)
        return func(*args, **kwargs)


class _Reductions:
    """Notes which reduction a process group was just asked for, while any recorder is on."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._installed = 0
        self._originals: dict[str, Any] = {}
        self._now = threading.local()

    def current(self) -> str:
        return getattr(self._now, "reduction", UNKNOWN_REDUCTION)

    def install(self) -> None:
        with self._lock:
            self._installed += 1
            if self._installed == 1:
                for name, method in list(vars(ProcessGroup).items()):
                    if "reduce" in name and not name.startswith("__"):
                        self._originals[name] = method
                        setattr(ProcessGroup, name, self._noting(getattr(ProcessGroup, name)))

    def uninstall(self) -> None:
        with self._lock:
            self._installed -= 1
            if self._installed == 0:
                while self._originals:
                    name, original = self._originals.popitem()
                    setattr(ProcessGroup, name, original)

    def _noting(self, original: Callable[..., Any]) -> Callable[..., Any]:
        def method(group: ProcessGroup, *args: Any, **kwargs: Any) -> Any:  # noqa: ANN401
            before = self.current()
            self._now.reduction = _reduction_name((*args, *kwargs.values()))
            try:
                return original(group, *args, **kwargs)
            finally:
                self._now.reduction = before

        return method


def _reduction_name(arguments: tuple[Any, ...]) -> str:
    names = filter(None, map(name_reduction, arguments))
    # No options given: every method of a process group sums by default.
    return next(names, "sum")


_reductions = _Reductions()
