"""Recording what vLLM's ``CUDAGraphWrapper`` captures.

The wrapper stands in every step, once for each piece of the model. So its call is only replaced
while graphs are captured: at start-up, and when a graph is captured again.
"""

from __future__ import annotations

import functools
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

from graphguard.log import logger
from graphguard.vllm.captures import Captures, Choice, piece_of
from graphguard.vllm.collectives import CommunicatorRecorder


class _Roles(threading.local):
    """Which model is being captured on this thread."""

    def __init__(self) -> None:
        self.current = "target"


_roles = _Roles()
_captures: dict[str, Captures] = {"target": Captures(), "drafter": Captures()}
_failures: list[str] = []


def failures() -> list[str]:
    """Return what could not be recorded, in words."""
    return list(_failures)


def captures_of(role: str) -> Captures:
    """Return what was captured in this process for a role."""
    return _captures[role]


@contextmanager
def capturing_role(role: str) -> Iterator[None]:
    """Record captures made inside under a role."""
    before, _roles.current = _roles.current, role
    try:
        yield
    finally:
        _roles.current = before


@contextmanager
def recorded_captures() -> Iterator[None]:
    """Record every graph that ``CUDAGraphWrapper`` captures inside."""
    from vllm.compilation.cuda_graph import CUDAGraphWrapper

    original = CUDAGraphWrapper.__call__
    if hasattr(original, "__graphguard_records__"):
        yield
        return

    @functools.wraps(original)
    def call(wrapper: Any, *args: Any, **kwargs: Any) -> Any:  # noqa: ANN401 - vLLM's own
        choice = _about_to_capture(wrapper)
        if choice is None:
            return original(wrapper, *args, **kwargs)
        return _record(wrapper, choice, original, args, kwargs)

    call.__graphguard_records__ = True  # type: ignore[attr-defined]
    CUDAGraphWrapper.__call__ = call
    try:
        yield
    finally:
        CUDAGraphWrapper.__call__ = original


def forget(wrapper: Any) -> None:  # noqa: ANN401 - vLLM's own
    """Drop what a wrapper has captured."""
    for captures in _captures.values():
        captures.drop(wrapper)


def _about_to_capture(wrapper: Any) -> Choice | None:  # noqa: ANN401 - vLLM's own
    """Return what a wrapper is about to capture a graph for, or None if it will not."""
    from vllm.forward_context import get_forward_context, is_forward_context_available

    if not is_forward_context_available():
        return None
    context = get_forward_context()
    mode, descriptor = context.cudagraph_runtime_mode, context.batch_descriptor
    if mode != wrapper.runtime_mode or descriptor is None:
        return None
    entry = wrapper.concrete_cudagraph_entries.get(descriptor)
    if entry is not None and entry.cudagraph is not None:
        return None
    return Choice(mode.name, descriptor)


def _record(
    wrapper: Any,  # noqa: ANN401 - vLLM's own
    choice: Choice,
    original: Callable[..., Any],
    args: tuple[Any, ...],
    kwargs: dict[str, Any],
) -> Any:  # noqa: ANN401 - what the model returns
    with CommunicatorRecorder() as recorder:
        output = original(wrapper, *args, **kwargs)
    try:
        if recorder.failure is not None:
            raise recorder.failure
        entry = wrapper.concrete_cudagraph_entries[choice.descriptor]
        inputs = {str(place): value for place, value in enumerate(args)} | kwargs
        tensors = {name: value for name, value in inputs.items() if hasattr(value, "data_ptr")}
        piece = piece_of(entry.cudagraph, tuple(recorder.calls), tensors, output)
        _captures[_roles.current].add(wrapper, choice, piece)
    except Exception as error:  # noqa: BLE001 - the capture itself went well
        if not _failures:
            logger().warning("the capture for %s is not recorded: %s; said once", choice, error)
        _failures.append(f"{_roles.current} {choice}: {type(error).__name__}: {error}")
    return output
