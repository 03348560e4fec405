"""The hooks of vLLM's V1 runner: ``vllm.v1.worker.gpu_model_runner.GPUModelRunner``."""

from __future__ import annotations

from typing import Any

from graphguard.vllm import capturing
from graphguard.vllm.patches import Function, wrap
from graphguard.vllm.worker_guard import WorkerGuard, worker_guard

ATTRIBUTE = "_graphguard_steps"
"""Where a dispatcher keeps the steps of its model."""


def install() -> None:
    """Put the hooks in place. Called again, it does nothing."""
    from vllm.compilation.cuda_graph import CUDAGraphWrapper
    from vllm.v1.cudagraph_dispatcher import CudagraphDispatcher
    from vllm.v1.worker.gpu_model_runner import GPUModelRunner

    wrap(GPUModelRunner, "capture_model", _capture_model)
    wrap(GPUModelRunner, "execute_model", _execute_model)
    wrap(GPUModelRunner, "_determine_batch_execution_and_padding", _determine)
    wrap(GPUModelRunner, "_model_forward", _model_forward)
    wrap(CudagraphDispatcher, "dispatch", _dispatch)
    wrap(CUDAGraphWrapper, "clear_graphs", capturing.forget_when_cleared)


def take_captures(runner: Any, worker: WorkerGuard) -> None:  # noqa: ANN401 - vLLM's own
    """Make signatures of what was captured, and let the dispatcher's choices be checked."""
    from vllm.config import CUDAGraphMode

    steps = worker.steps("target")
    steps.take(capturing.captures_of("target"), CUDAGraphMode)
    setattr(runner.cudagraph_dispatcher, ATTRIBUTE, steps)


def _capture_model(original: Function) -> Function:
    def capture_model(self: Any, *args: Any, **kwargs: Any) -> Any:  # noqa: ANN401
        with capturing.recorded_captures():
            result = original(self, *args, **kwargs)
        worker_guard().captured(self)
        return result

    return capture_model


def _execute_model(original: Function) -> Function:
    def execute_model(self: Any, *args: Any, **kwargs: Any) -> Any:  # noqa: ANN401
        worker = worker_guard()
        if not worker.sealed:
            worker.seal(self)
        worker.in_step = True
        try:
            return original(self, *args, **kwargs)
        finally:
            worker.in_step = False

    return execute_model


def _determine(original: Function) -> Function:
    worker = worker_guard()

    def determine(
        self: Any,  # noqa: ANN401
        num_tokens: int,
        num_reqs: int,
        num_scheduled_tokens_np: Any,  # noqa: ANN401
        max_num_scheduled_tokens: int,
        *args: Any,  # noqa: ANN401
        **kwargs: Any,  # noqa: ANN401
    ) -> Any:  # noqa: ANN401
        steps = worker.target
        if worker.in_step and steps is not None:
            try:
                if steps.input_batch is not self.input_batch:
                    steps.read_phases_of(self.input_batch)
                steps.pending = worker.batch = (
                    num_reqs,
                    max_num_scheduled_tokens,
                    num_tokens,
                    steps.phase(num_reqs),
                )
            except Exception as error:  # noqa: BLE001 - the step runs as it would without us
                steps.pending = None
                steps.guard.say_once("batch", f"target steps are not checked: {error!r}")
        return original(
            self,
            num_tokens,
            num_reqs,
            num_scheduled_tokens_np,
            max_num_scheduled_tokens,
            *args,
            **kwargs,
        )

    return determine


def _dispatch(original: Function) -> Function:
    def dispatch(self: Any, *args: Any, **kwargs: Any) -> Any:  # noqa: ANN401
        steps = self.__dict__.get(ATTRIBUTE)
        if steps is None or steps.pending is None:
            return original(self, *args, **kwargs)
        sizes, steps.pending = steps.pending, None

        def again(**modes: Any) -> Any:  # noqa: ANN401
            return original(self, *args, **(kwargs | modes))

        return steps.dispatched(sizes, original(self, *args, **kwargs), again)

    return dispatch


def _model_forward(original: Function) -> Function:
    worker = worker_guard()

    def model_forward(self: Any, *args: Any, **kwargs: Any) -> Any:  # noqa: ANN401
        steps = worker.target
        if not worker.in_step or steps is None:
            return original(self, *args, **kwargs)
        if steps.padded is not None:
            steps.check_padding(self)
        steps.guard.launching()
        try:
            return original(self, *args, **kwargs)
        finally:
            steps.guard.launched()

    return model_forward
