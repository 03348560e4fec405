"""Recording what vLLM's ``CUDAGraphWrapper`` captures, and keeping what any part records.

The wrapper stands in every step, once for each piece of the model. So its call is only replaced
while graphs are captured: at start-up, and when a graph is captured again.
"""

from __future__ import annotations

import functools
import threading
import weakref
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

from graphguard.log import logger
from graphguard.recorders.graph_nodes import watched_captures
from graphguard.vllm.captures import Captures, Choice, Piece, piece_of
from graphguard.vllm.collectives import CommunicatorRecorder, install
from graphguard.vllm.patches import wrapped_inside


class _Roles(threading.local):
    """Which model is being captured on this thread, and what for where that is known."""

    def __init__(self) -> None:
        self.current = "target"
        self.into: tuple[Captures, Choice] | None = None


_roles = _Roles()
_all: weakref.WeakSet[Captures] = weakref.WeakSet()
_failures: list[str] = []


def new_captures() -> Captures:
    """Return a place for captures, from which those are dropped that vLLM throws away."""
    captures = Captures()
    _all.add(captures)
    return captures


_captures = {"target": new_captures(), "drafter": new_captures()}


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
def capturing_into(captures: Captures, choice: Choice) -> Iterator[None]:
    """Keep what is captured inside in ``captures``, under a choice that the caller knows."""
    before, _roles.into = _roles.into, (captures, choice)
    try:
        yield
    finally:
        _roles.into = before


def keep(owner: object, choice: Choice, pieces: list[Piece]) -> None:
    """Keep what was recorded of the graphs of one step.

    Args:
        owner: What of vLLM holds the graphs.
        choice: What they are for, unless the caller of :func:`capturing_into` knows better.
        pieces: What was recorded of each.
    """
    captures, known = _roles.into or (_captures[_roles.current], choice)
    for piece in pieces:
        captures.add(owner, known, piece)


def not_recorded(choice: Choice, error: Exception) -> None:
    """Note that a capture went well and could not be recorded."""
    if not _failures:
        logger().warning("the capture for %s is not recorded: %s; said once", choice, error)
    _failures.append(f"{_roles.current} {choice}: {type(error).__name__}: {error}")


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
        # Steps outside of graphs call the communicators too, hundreds of times.
        with wrapped_inside(), watched_captures():
            _install()
            yield
    finally:
        CUDAGraphWrapper.__call__ = original


def _install() -> None:
    try:
        install()
    except Exception as error:  # noqa: BLE001 - when enforcing, raised when the graphs are sealed
        logger().warning("the collectives of captures are not recorded: %s", error)
        _failures.append(f"the communicators: {type(error).__name__}: {error}")


def forget(wrapper: Any) -> None:  # noqa: ANN401 - vLLM's own
    """Drop what a wrapper has captured."""
    for captures in _all:
        captures.drop(wrapper)


def tensors_of(args: tuple[Any, ...], kwargs: dict[str, Any]) -> dict[str, Any]:
    """Return the tensors that a model is called with, by name or place."""
    inputs = {str(place): value for place, value in enumerate(args)} | kwargs
    return {name: value for name, value in inputs.items() if hasattr(value, "data_ptr")}


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
        tensors = tensors_of(args, kwargs)
        keep(wrapper, choice, [piece_of(entry.cudagraph, tuple(recorder.calls), tensors, output)])
    except Exception as error:  # noqa: BLE001 - the capture itself went well
        not_recorded(choice, error)
    return output
