"""Recording what the graph managers of vLLM's V2 runner capture.

A manager captures a full graph by itself: it asks for a forward function, runs it once to warm up
and once more inside the capture. For a piecewise graph that run makes the wrappers inside of the
model capture, or the breakable one around it. Both are kept under the manager's own descriptor.
"""

from __future__ import annotations

import functools
import inspect
from collections.abc import Callable
from typing import Any

from graphguard.vllm import capturing
from graphguard.vllm.captures import Captures, Choice, piece_of
from graphguard.vllm.collectives import CommunicatorRecorder
from graphguard.vllm.patches import Function, wrap

_ATTRIBUTE = "_graphguard_captures"
_FULL = "FULL"


class ManagerCaptures:
    """What a manager has captured, for as long as there is the manager.

    Attributes:
        graphs: What was recorded.
        ungraphed: Piecewise descriptors that the model captures nothing for: it is not compiled,
            and what vLLM calls a piecewise step of it runs eagerly.
        arguments: What the target's manager was told to capture with, to tell it again; None where
            it was not, or where LoRAs are in it, which are dummies then.
    """

    def __init__(self) -> None:
        self.graphs: Captures = capturing.new_captures()
        self.ungraphed: set[Any] = set()
        self.arguments: tuple[tuple[Any, ...], dict[str, Any]] | None = None


def install() -> None:
    """Put the hooks in place. Called again, it does nothing."""
    from vllm.v1.worker.gpu.cudagraph_utils import CudaGraphManager, ModelCudaGraphManager

    wrap(CudaGraphManager, "capture", _capture)
    wrap(ModelCudaGraphManager, "capture", _capture_model)
    if hasattr(CudaGraphManager, "release_graphs"):
        wrap(CudaGraphManager, "release_graphs", _release_graphs)


def captures_of(manager: Any) -> ManagerCaptures:  # noqa: ANN401 - vLLM's own
    """Return what a manager has captured."""
    found: ManagerCaptures | None = manager.__dict__.get(_ATTRIBUTE)
    if found is None:
        found = ManagerCaptures()
        setattr(manager, _ATTRIBUTE, found)
    return found


def _capture(original: Function) -> Function:
    def capture(self: Any, create_forward_fn: Function, *args: Any, **kwargs: Any) -> Any:  # noqa: ANN401
        recording = _Recording(self, create_forward_fn)
        with capturing.recorded_captures():
            result = original(self, recording.create_forward_fn, *args, **kwargs)
        recording.finish()
        return result

    return capture


def _capture_model(original: Function) -> Function:
    def capture_model(self: Any, *args: Any, **kwargs: Any) -> Any:  # noqa: ANN401
        if not kwargs.get("has_lora"):
            captures_of(self).arguments = args, kwargs
        return original(self, *args, **kwargs)

    return capture_model


def _release_graphs(original: Function) -> Function:
    def release_graphs(self: Any, *args: Any, **kwargs: Any) -> Any:  # noqa: ANN401
        captures_of(self).graphs.drop(self)
        return original(self, *args, **kwargs)

    return release_graphs


class _Recording:
    """One run of a manager's ``capture``."""

    def __init__(self, manager: Any, create: Function) -> None:  # noqa: ANN401 - vLLM's own
        self._manager = manager
        self._create = create
        self._captures = captures_of(manager)
        self._warm: set[Any] = set()
        self._full: list[tuple[Choice, CommunicatorRecorder]] = []

    def create_forward_fn(self, desc: Any, *args: Any, **kwargs: Any) -> Function:  # noqa: ANN401
        """Stand for vLLM's own function of this name."""
        return functools.partial(self._forward, desc, self._create(desc, *args, **kwargs))

    def finish(self) -> None:
        """Keep what was recorded of full graphs, which the manager has by now."""
        for choice, recorder in self._full:
            try:
                self._keep(choice, recorder)
            except Exception as error:  # noqa: BLE001, PERF203 - the capture itself went well
                capturing.not_recorded(choice, error)

    def _forward(self, desc: Any, forward_fn: Function, *args: Any) -> Any:  # noqa: ANN401
        # Whether vLLM makes a second function for the capture or calls the first one again depends
        # on its version. That the first run of all is the warm-up does not.
        if desc not in self._warm:
            self._warm.add(desc)
            return forward_fn(*args)
        choice = Choice(desc.cg_mode.name, desc)
        if choice.mode == _FULL:
            with CommunicatorRecorder() as recorder:
                output = forward_fn(*args)
            self._full.append((choice, recorder))
            return output
        with capturing.capturing_into(self._captures.graphs, choice):
            output = forward_fn(*args)
        if choice not in self._captures.graphs.choices:
            self._captures.ungraphed.add(desc)
        return output

    def _keep(self, choice: Choice, recorder: CommunicatorRecorder) -> None:
        if recorder.failure is not None:
            raise recorder.failure
        desc: Any = choice.descriptor
        graph = self._manager.graphs[desc]
        inputs = _inputs(self._create, desc)
        outputs = _outputs(self._manager, desc)
        piece = piece_of(graph, tuple(recorder.calls), inputs, outputs)
        self._captures.graphs.add(self._manager, choice, piece)


def _inputs(create: Callable[..., Any], desc: Any) -> dict[str, Any]:  # noqa: ANN401 - vLLM's own
    """Return the static inputs of a full graph: vLLM's functions hold the buffers in a closure."""
    try:
        buffers = inspect.getclosurevars(create).nonlocals.get("input_buffers")
    except (TypeError, ValueError):
        # No plain function, or one that does not hold what it names. The graph is recorded anyway.
        return {}
    num_reqs = desc.num_reqs or 0
    sizes = {
        "input_ids": desc.num_tokens,
        "positions": desc.num_tokens,
        "query_start_loc": num_reqs + 1,
        "seq_lens": num_reqs,
    }
    found = {name: getattr(buffers, name, None) for name in sizes}
    return {name: it[: sizes[name]] for name, it in found.items() if it is not None}


def _outputs(manager: Any, desc: Any) -> list[Any]:  # noqa: ANN401 - vLLM's own
    """Return what a full graph of the target writes; a drafter's writes into the speculator."""
    hidden_states = getattr(manager, "hidden_states", None)
    if hidden_states is not None:
        written = [hidden_states, *manager.aux_hidden_states]
    else:
        # A pipeline stage that is not the last one writes what the next one reads.
        passed_on = getattr(manager, "intermediate_tensors", None)
        written = [] if passed_on is None else list(passed_on.tensors.values())
    return [it[: desc.num_tokens] for it in written]
