"""The collective calls of one capture as vLLM's communicators make them, with their transport.

Most all-reduces of a decode graph are not NCCL's: vLLM picks a transport for each tensor. So the
calls are recorded where vLLM makes them, at its group coordinators, and what runs inside such a
call only says which way it went. Nothing here stands in torch's dispatcher: that would take
compiled code back to eager, and another graph would be captured than without.

``GroupCoordinator.all_reduce``, ``all_gather`` and ``reduce_scatter`` are left alone. torch.compile
traces them, and on a device they end in an operator of vLLM that calls the ``_out_place`` method of
the same name, compiled or not: it is that method which is wrapped.
"""

from __future__ import annotations

import threading
from collections.abc import Mapping, Sequence
from types import TracebackType
from typing import Any

import msgspec
import torch
from torch._ops import OpOverload

from graphguard.errors import NestedCapture
from graphguard.graphs import emulated
from graphguard.recorders import own_captures
from graphguard.signature import CollectiveCall
from graphguard.vllm import communicator_patches as patches
from graphguard.vllm.communicator_calls import Owner
from graphguard.vllm.communicator_patches import OPERATORS, install
from graphguard.vllm.communicator_wrappers import Method, active
from graphguard.vllm.transports import PREFIX, UNSEEN

__all__ = ["CommunicatorRecorder", "install", "transports"]


class _Call:
    """A call that is running: what it says of itself, and what was seen to run inside it."""

    def __init__(self, method: Method, owner: Owner, manager: str) -> None:
        self.method = method
        self.group = owner.unique_name
        self.owner = owner
        self.manager = manager
        self.said: list[CollectiveCall] = []
        self.transports: list[str] = [method.transport] if method.transport else []
        self.symmetric = False
        self.passed_on = False

    def collectives(self) -> list[CollectiveCall]:
        if self.passed_on:
            return []
        way = "+".join(dict.fromkeys(self.transports))
        seen_by = PREFIX + ("/".join(filter(None, (self.manager, way))) or UNSEEN)
        return [msgspec.structs.replace(call, seen_by=seen_by) for call in self.said]


class CommunicatorRecorder:
    """Records the collective calls of one capture, in the order in which they begin.

    Enter it around the capture; one at a time in a process. The outermost call on a group counts,
    and is recorded even if it raises: a part of it may be in the graph. Calls on a group of one
    rank are none. Calls of other threads count while their stream is being captured, as those of
    vLLM's micro-batches are. Objects and barriers, which go from host to host, are left out.

    Attributes:
        failure: The first error of the recorder itself, or None. It is kept here and not raised:
            vLLM must go on as it would have.
    """

    def __init__(self) -> None:
        self.failure: Exception | None = None
        self._calls: list[_Call] = []
        self._thread = 0
        self._running = threading.local()

    @property
    def calls(self) -> list[CollectiveCall]:
        """What was recorded so far."""
        return [collective for call in self._calls for collective in call.collectives()]

    def __enter__(self) -> CommunicatorRecorder:
        """Begin to record. Inside of another recorder it fails: a call is not counted twice."""
        try:
            if active.recorder is not None:
                raise NestedCapture(
                    "the communicators of vLLM are already being recorded",
                    hint="end the first recording before the second begins",
                )
            patches.wrap_loaded()
        except Exception as error:  # noqa: BLE001 - kept for whoever reads the record
            self._fail(error)
        if active.recorder is None:
            self._thread = threading.get_ident()
            own_captures.claim()
            emulated.add_observer(self._observe)
            active.recorder = self
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        if active.recorder is self:
            active.recorder = None
            own_captures.release()
            emulated.remove_observer(self._observe)

    def begin(
        self, method: Method, args: tuple[Any, ...], kwargs: Mapping[str, Any]
    ) -> _Call | None:
        """Note that a method was called; None if it does not count."""
        try:
            running = self._running_here()
            owner = args[0] if method.owner is None else method.owner()
            if not self._counts(method, owner, running):
                return None
            call = _Call(method, owner, running[-1].manager if running else "")
            if method.read is not None:
                own = args[1:] if method.has_self else args
                call.said = method.read(owner, *own, **kwargs)
        except Exception as error:  # noqa: BLE001 - kept for whoever reads the record
            self._fail(error)
            return None
        for outer in running:
            outer.passed_on = outer.passed_on or outer.method.passes_on
        running.append(call)
        self._calls.append(call)
        return call

    def returned(
        self, call: _Call, result: object, args: tuple[Any, ...], kwargs: Mapping[str, Any]
    ) -> None:
        """Note what a call returned."""
        try:
            if result is None and call.method.declines:
                self._calls.remove(call)
            elif call.method.read_result is not None:
                call.said = call.method.read_result(call.owner, result, *args[1:], **kwargs)
        except Exception as error:  # noqa: BLE001 - kept for whoever reads the record
            self._fail(error)

    def end(self, call: _Call) -> None:
        """Note that a call is over."""
        self._running_here().remove(call)

    def current(self) -> _Call | None:
        """The innermost call that is running on this thread."""
        running = self._running_here()
        return running[-1] if running else None

    def _running_here(self) -> list[_Call]:
        stack: list[_Call] | None = getattr(self._running, "calls", None)
        if stack is None:
            stack = self._running.calls = []
        return stack

    def _counts(self, method: Method, owner: Owner, running: Sequence[_Call]) -> bool:
        if owner.world_size <= 1 or not self._belongs():
            return False
        if method.passes_on:
            # A coordinator without a communicator returns what it is given.
            return not running and getattr(owner, "device_communicator", owner) is not None
        return not any(
            call.group == owner.unique_name and not call.method.passes_on for call in running
        )

    def _belongs(self) -> bool:
        if threading.get_ident() == self._thread:
            return True
        return torch.cuda.is_initialized() and torch.cuda.is_current_stream_capturing()

    def _observe(self, func: OpOverload, args: tuple[Any, ...], kwargs: Mapping[str, Any]) -> None:
        """Read vLLM's operators in an emulated capture, which shows them and runs none of them."""
        method = OPERATORS.get(func._schema.name)
        if method is None:
            return
        try:
            names = (argument.name for argument in func._schema.arguments)
            given = {**dict(zip(names, args, strict=False)), **kwargs}
            owner = patches.coordinator(given["group_name"])
            own = (owner, given["tensor"], *((given["dim"],) if "dim" in given else ()))
        except Exception as error:  # noqa: BLE001 - kept for whoever reads the record
            self._fail(error)
            return
        call = self.begin(method, own, {})
        if call is not None:
            self.end(call)

    def _fail(self, error: Exception) -> None:
        self.failure = self.failure or error


def transports(calls: Sequence[CollectiveCall]) -> tuple[str, ...]:
    """Return the transport of each call that a communicator recorder saw, in order."""
    return tuple(
        call.seen_by.removeprefix(PREFIX) for call in calls if call.seen_by.startswith(PREFIX)
    )
