"""The hooks of vLLM's V2 runner: ``vllm.v1.worker.gpu.model_runner.GPUModelRunner``."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from types import TracebackType
from typing import Any

import numpy as np

from graphguard import _core
from graphguard.batch import BatchDescriptor
from graphguard.log import logger
from graphguard.vllm import armed, captures_v2, capturing, padding_v2
from graphguard.vllm.contract import Part, missing
from graphguard.vllm.dispatching_v2 import Request
from graphguard.vllm.model_guard import ModelGuard
from graphguard.vllm.patches import Function, wrap
from graphguard.vllm.steps_v2 import StepsV2
from graphguard.vllm.worker_guard import WorkerGuard, worker_guard

ATTRIBUTE = "_graphguard_steps"
"""Where a graph manager keeps the steps of its model."""

PADDING = Part.V2_PADDING.value
"""The name of the part that looks at padded slots."""

_DECODE = 0


class _Step:
    """The step that runs, as the scheduler asked for it."""

    runner: Any = None
    scheduled: Any = None


_step = _Step()


def install() -> None:
    """Put the hooks in place. Called again, it does nothing."""
    from vllm.compilation.cuda_graph import CUDAGraphWrapper
    from vllm.v1.worker.gpu import model_runner
    from vllm.v1.worker.gpu.cudagraph_utils import CudaGraphManager

    captures_v2.install()
    if reasons := missing(Part.V2_PADDING):
        armed.not_armed(PADDING, reasons)
    else:
        padding_v2.install()
        armed.armed(PADDING)
    wrap(model_runner.GPUModelRunner, "capture_model", _capture_model)
    wrap(model_runner.GPUModelRunner, "execute_model", _execute_model)
    wrap(model_runner, "dispatch_cg_and_sync_dp", _dispatch_cg_and_sync_dp)
    wrap(model_runner, "set_forward_context", _set_forward_context)
    wrap(CudaGraphManager, "run_fullgraph", _run_fullgraph)
    wrap(CUDAGraphWrapper, "clear_graphs", capturing.forget_when_cleared)


def take_captures(runner: Any, worker: WorkerGuard) -> None:  # noqa: ANN401 - vLLM's own
    """Make signatures of what was captured, and let the runner's choices be checked."""
    from vllm.config import CUDAGraphMode

    manager = runner.cudagraph_manager
    if manager is not None:
        steps: StepsV2 = worker.steps("target", StepsV2.of)
        steps.take(captures_v2.captures_of(manager), CUDAGraphMode)
        setattr(manager, ATTRIBUTE, steps)
        if armed.is_armed(PADDING):
            padding_v2.look_at_target(runner, steps.guard)


def launching(original: Function, steps_of: Callable[[], StepsV2 | None]) -> Function:
    """Return vLLM's ``set_forward_context`` with marks of the launch that runs inside of it.

    It stands around every run of the model that is no full graph.
    """

    def set_forward_context(*args: Any, **kwargs: Any) -> Any:  # noqa: ANN401
        context = original(*args, **kwargs)
        steps = steps_of()
        return context if steps is None or not steps.in_step else _Launching(context, steps.guard)

    return set_forward_context


class _Launching:
    """A forward context in which a launch is marked."""

    def __init__(self, context: Any, guard: ModelGuard) -> None:  # noqa: ANN401 - vLLM's own
        self._context = context
        self._guard = guard

    def __enter__(self) -> Any:  # noqa: ANN401 - vLLM's own
        entered = self._context.__enter__()
        self._guard.launching()
        return entered

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> Any:  # noqa: ANN401 - vLLM's own
        self._guard.launched()
        return self._context.__exit__(kind, error, traceback)


def _capture_model(original: Function) -> Function:
    def capture_model(self: Any, *args: Any, **kwargs: Any) -> Any:  # noqa: ANN401
        result = original(self, *args, **kwargs)
        if not kwargs.get("profile_only"):
            worker_guard().captured(self)
        return result

    return capture_model


def _execute_model(original: Function) -> Function:
    worker = worker_guard()

    def execute_model(
        self: Any,  # noqa: ANN401
        scheduler_output: Any,  # noqa: ANN401
        intermediate_tensors: Any = None,  # noqa: ANN401
        dummy_run: bool = False,
        *args: Any,  # noqa: ANN401
        **kwargs: Any,  # noqa: ANN401
    ) -> Any:  # noqa: ANN401
        if not worker.sealed and not dummy_run and _is_real(worker, scheduler_output):
            worker.seal(self)
        steps: StepsV2 | None = worker.target
        if dummy_run or not worker.sealed or steps is None:
            return original(
                self, scheduler_output, intermediate_tensors, dummy_run, *args, **kwargs
            )
        _step.runner, _step.scheduled = self, scheduler_output
        steps.in_step = True
        try:
            return original(self, scheduler_output, intermediate_tensors, False, *args, **kwargs)
        finally:
            steps.in_step = False
            _step.runner = _step.scheduled = None
            padding_v2.forget()

    return execute_model


def _is_real(worker: WorkerGuard, scheduled: Any) -> bool:  # noqa: ANN401 - vLLM's own
    """Whether start-up is over: until then vLLM warms up with steps that look like real ones.

    The worker says when it is over. Where it does not, because that hook is not in place or the
    worker is another one, the first step with a request that is not made up says so.
    """
    if worker.started:
        return True
    names: Iterable[str] = scheduled.num_scheduled_tokens
    if all(name.startswith("_") and "warmup" in name for name in names):
        return False
    logger().warning(
        "the end of vLLM's start-up was not seen: ranks compare their graphs in the first step"
    )
    return True


def _dispatch_cg_and_sync_dp(original: Function) -> Function:
    worker = worker_guard()

    def dispatch_cg_and_sync_dp(  # noqa: PLR0917 - as vLLM calls it
        cudagraph_manager: Any,  # noqa: ANN401
        num_reqs: int,
        num_tokens: int,
        uniform_token_count: int | None,
        dp_size: int,
        dp_rank: int,
        **more: Any,  # noqa: ANN401
    ) -> Any:  # noqa: ANN401
        request = Request(
            original,
            cudagraph_manager,
            num_reqs,
            num_tokens,
            uniform_token_count,
            dp_size,
            dp_rank,
            more,
        )
        steps: StepsV2 | None = worker.target
        if steps is None or not steps.in_step or cudagraph_manager is None:
            return request.unguarded()
        worker.batch = batch = _batch(steps, request)
        if batch is None:
            return request.unguarded()
        return steps.dispatch(request, batch, runs_as=_runs_as(steps, batch))

    return dispatch_cg_and_sync_dp


def _batch(steps: StepsV2, request: Request) -> BatchDescriptor | None:
    """Return what a step of the target runs, or None if that cannot be told."""
    try:
        scheduled: dict[str, int] = _step.scheduled.num_scheduled_tokens
        query_len = request.uniform_token_count or min(max(scheduled.values()), request.num_tokens)
        phase = phase_of(_step.runner.req_states, _step.scheduled)
        return steps.batch(request.num_reqs, query_len, request.num_tokens, phase)
    except Exception as error:  # noqa: BLE001 - the step runs as it would without us
        steps.guard.say_once("batch", f"target steps are not checked: {error!r}")
        return None


def phase_of(states: Any, scheduled: Any) -> int:  # noqa: ANN401 - vLLM's own
    """Return the phase of a step, from what the runner keeps of its requests on the host.

    It is a decode only if all its requests are past their prompts, as on the V1 runner. What a
    request computes again after a preemption counts as its prompt here, for vLLM's V2 runner keeps
    it so: a graph that verifies drafts is as wrong for that.

    Args:
        states: The runner's ``RequestState``, with the requests of the step.
        scheduled: vLLM's ``SchedulerOutput``.
    """
    lengths: dict[str, int] = scheduled.num_scheduled_tokens
    computed, due = _progress(states, lengths)
    return _core.phase_of(computed, due, len(lengths))


def runs_as_decodes(states: Any, scheduled: Any) -> bool:  # noqa: ANN401 - vLLM's own
    """Whether every prefill of a step adds one token to tokens that are computed, besides drafts.

    vLLM since 0.32 runs such a prefill as a decode, and its scheduler pads it with drafts for that;
    earlier versions only look at the shape, and their models take it for a prefill.

    Args:
        states: The runner's ``RequestState``, with the requests of the step.
        scheduled: vLLM's ``SchedulerOutput``.
    """
    lengths: dict[str, int] = scheduled.num_scheduled_tokens
    drafts = scheduled.scheduled_spec_decode_tokens
    computed, due = _progress(states, lengths)
    return all(
        done >= whole or (done > 0 and length - len(drafts.get(request, ())) == 1)
        for done, whole, (request, length) in zip(
            computed.tolist(), due.tolist(), lengths.items(), strict=True
        )
    )


def _progress(states: Any, lengths: dict[str, int]) -> tuple[Any, Any]:  # noqa: ANN401
    """Return, for each request of a step, what is computed of its prompt, and all of its prompt."""
    places = np.fromiter(map(states.req_id_to_index.__getitem__, lengths), np.intp, len(lengths))
    return states.num_computed_prefill_tokens[places], states.prefill_len.np[places]


def _runs_as(steps: StepsV2, batch: BatchDescriptor) -> BatchDescriptor | None:
    """Return what a batch is checked as, if not as itself."""
    if batch.phase == _DECODE or not hasattr(type(_step.runner), "gather_batch_req_state"):
        return None
    try:
        if runs_as_decodes(_step.runner.req_states, _step.scheduled):
            return steps.batch(batch.num_reqs, batch.query_len, batch.num_tokens, _DECODE)
    except Exception as error:  # noqa: BLE001 - the step runs as it would without us
        steps.guard.say_once("runs as", f"prefills of one token count as prefills: {error!r}")
    return None


def _set_forward_context(original: Function) -> Function:
    worker = worker_guard()
    return launching(original, lambda: worker.target)


def _run_fullgraph(original: Function) -> Function:
    def run_fullgraph(self: Any, desc: Any) -> Any:  # noqa: ANN401
        steps: StepsV2 | None = self.__dict__.get(ATTRIBUTE)
        if steps is None or not steps.in_step:
            return original(self, desc)
        if (extent := steps.padded) is not None:
            # A drafter's graph may be replayed for each draft. Its first replay changes the slots.
            steps.padded = None
            if (look := self.__dict__.get(padding_v2.LOOK)) is not None:
                look(desc, extent)
        steps.guard.launching()
        try:
            return original(self, desc)
        finally:
            steps.guard.launched()

    return run_fullgraph
