"""The wrappers that tell the recorder of collective calls what vLLM does.

A wrapper costs a test of two things when nothing is recorded. While torch.compile traces it, it is
not there: the test for that is a constant to the tracer, and what is compiled stays what it was.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any, NamedTuple, Protocol

import torch

from graphguard.vllm.communicator_calls import Owner, Reader
from graphguard.vllm.patches import Function, Make

_tracing = torch.compiler.is_dynamo_compiling


class Method(NamedTuple):
    """How a function that communicates is recorded.

    Attributes:
        read: Reads its arguments. None if only its result says what it did.
        read_result: Reads its result, and then its arguments.
        passes_on: Whether it may leave the communication to another coordinator.
        declines: Whether a result of None means that it did nothing.
        transport: What it sends through, where that is known beforehand.
        owner: Finds whose group it runs on. None if it is a method of that owner.
        has_self: Whether it is a method.
    """

    read: Reader | None
    read_result: Reader | None = None
    passes_on: bool = False
    declines: bool = False
    transport: str = ""
    owner: Callable[[], Owner] | None = None
    has_self: bool = True


class Running(Protocol):
    """A call that is being recorded."""

    transports: list[str]
    manager: str
    symmetric: bool


class Recorder(Protocol):
    """What the wrappers tell. None of it raises."""

    def begin(self, method: Method, args: tuple[Any, ...], kwargs: Mapping[str, Any]) -> Any:  # noqa: ANN401 - the recorder's own
        """Note that a method was called; None if it does not count."""

    def returned(
        self,
        call: Any,  # noqa: ANN401 - the recorder's own
        result: object,
        args: tuple[Any, ...],
        kwargs: Mapping[str, Any],
    ) -> None:
        """Note what a call returned."""

    def end(self, call: Any) -> None:  # noqa: ANN401 - the recorder's own
        """Note that a call is over."""

    def current(self) -> Running | None:
        """The innermost call that is running on this thread."""


class Active:
    """Which recorder is on in this process."""

    __slots__ = ("recorder",)

    def __init__(self) -> None:
        self.recorder: Recorder | None = None


active = Active()


def recorded(method: Method) -> Make:
    """Make the wrapper of a function that communicates."""

    def make(original: Function) -> Function:
        def record(*args: Any, **kwargs: Any) -> Any:  # noqa: ANN401
            if _tracing():
                return original(*args, **kwargs)
            # Read once: another thread may end the recording at any time.
            recorder = active.recorder
            if recorder is None:
                return original(*args, **kwargs)
            return _record(recorder, method, original, args, kwargs)

        return record

    return make


def _record(
    recorder: Recorder,
    method: Method,
    original: Function,
    args: tuple[Any, ...],
    kwargs: Mapping[str, Any],
) -> Any:  # noqa: ANN401 - whatever the method returns
    call = recorder.begin(method, args, kwargs)
    if call is None:
        return original(*args, **kwargs)
    try:
        result = original(*args, **kwargs)
        recorder.returned(call, result, args, kwargs)
        return result
    finally:
        recorder.end(call)


def through(name: str, *, declines: bool = False) -> Make:
    """Make the wrapper of a function that is one way to communicate.

    Args:
        name: The transport.
        declines: Whether a result of None means that it did not take the call.
    """

    def make(original: Function) -> Function:
        def carry(*args: Any, **kwargs: Any) -> Any:  # noqa: ANN401
            call = None if _tracing() else _running_call()
            # A communicator that is switched off returns at once.
            if call is None or getattr(args[0], "disabled", False):
                return original(*args, **kwargs)
            before = len(call.transports)
            result = original(*args, **kwargs)
            if not (declines and result is None):
                # What ran inside it is how it works, not another way.
                symmetric = name == "nccl" and call.symmetric
                call.transports[before:] = ["nccl_symm_mem" if symmetric else name]
            return result

        return carry

    return make


def managed(name: str) -> Make:
    """Make the wrapper of a function that communicates through other coordinators."""

    def make(original: Function) -> Function:
        def manage(*args: Any, **kwargs: Any) -> Any:  # noqa: ANN401
            call = None if _tracing() else _running_call()
            if call is not None:
                call.manager = name
            return original(*args, **kwargs)

        return manage

    return make


def symmetric_memory(original: Function) -> Function:
    """Make the wrapper of what is entered to allocate where NCCL needs no copies."""

    def enter(context: Any, *args: Any) -> Any:  # noqa: ANN401
        call = None if _tracing() else _running_call()
        if call is not None and not getattr(context, "disabled", False):
            call.symmetric = True
        return original(context, *args)

    return enter


def _running_call() -> Running | None:
    recorder = active.recorder
    return None if recorder is None else recorder.current()
