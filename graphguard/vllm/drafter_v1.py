"""The hooks of the V1 proposer, which runs the MTP drafter."""

from __future__ import annotations

from typing import Any

from graphguard.vllm import capturing, skipped_drafts
from graphguard.vllm.patches import Function, wrap
from graphguard.vllm.runner_v1 import ATTRIBUTE
from graphguard.vllm.worker_guard import WorkerGuard, worker_guard


def install() -> None:
    """Put the hooks in place. Called again, it does nothing."""
    from vllm.v1.spec_decode.llm_base_proposer import SpecDecodeBaseProposer

    wrap(SpecDecodeBaseProposer, "dummy_run", _dummy_run)
    wrap(SpecDecodeBaseProposer, "propose", _propose)
    wrap(SpecDecodeBaseProposer, "_determine_batch_execution_and_padding", _determine)


def install_in_runner() -> None:
    """Put the hook in place that sees a drafter which is not run. The runner must be imported."""
    from vllm.v1.worker.gpu_model_runner import GPUModelRunner

    skipped_drafts.install(GPUModelRunner)


def take_captures(runner: Any, worker: WorkerGuard) -> None:  # noqa: ANN401 - vLLM's own
    """Make signatures of what the drafter captured, and let its dispatcher's choices be checked."""
    from vllm.config import CUDAGraphMode

    dispatcher = getattr(getattr(runner, "drafter", None), "cudagraph_dispatcher", None)
    if dispatcher is None:
        return
    steps = worker.steps("drafter")
    steps.take(capturing.captures_of("drafter"), CUDAGraphMode)
    setattr(dispatcher, ATTRIBUTE, steps)


def _dummy_run(original: Function) -> Function:
    def dummy_run(self: Any, *args: Any, **kwargs: Any) -> Any:  # noqa: ANN401
        with capturing.capturing_role("drafter"):
            return original(self, *args, **kwargs)

    return dummy_run


def _propose(original: Function) -> Function:
    worker = worker_guard()

    def propose(self: Any, *args: Any, **kwargs: Any) -> Any:  # noqa: ANN401
        steps = worker.drafter
        if steps is None or not worker.sealed:
            return original(self, *args, **kwargs)
        worker.first_pass = worker.drafted = True
        try:
            return original(self, *args, **kwargs)
        finally:
            if worker.first_pass is False:
                steps.guard.launched()
            worker.first_pass = None

    return propose


def _determine(original: Function) -> Function:
    worker = worker_guard()

    def determine(self: Any, num_tokens: int, *args: Any, **kwargs: Any) -> Any:  # noqa: ANN401
        steps = worker.drafter
        if worker.first_pass is None or steps is None:
            return original(self, num_tokens, *args, **kwargs)
        if not worker.first_pass:
            steps.guard.launched()
        try:
            steps.pending = _pending(worker, num_tokens)
        except Exception as error:  # noqa: BLE001 - the step runs as it would without us
            steps.pending = None
            steps.guard.say_once("batch", f"drafter steps are not checked: {error!r}")
        result = original(self, num_tokens, *args, **kwargs)
        worker.first_pass = False
        steps.guard.launching()
        return result

    return determine


def _pending(worker: WorkerGuard, num_tokens: int) -> Any:  # noqa: ANN401 - a descriptor or None
    """Return what a pass of the drafter wants to run.

    The first pass takes every query token of the target's step, or one more for each request;
    every further one takes one token a request.
    """
    batch = worker.batch
    if batch is None:
        return None
    if not worker.first_pass:
        return num_tokens, 1, num_tokens, 0
    num_reqs, _, target_tokens, phase = batch
    return batch if num_tokens == target_tokens else (num_reqs, num_tokens, num_tokens, phase)
