"""Capturing a graph of the V1 runner again while the engine serves.

It is a collective: custom all-reduce exchanges the addresses of what was captured. So it is only
done when all workers are told to, between two steps, and inside vLLM's own capture context.
"""

from __future__ import annotations

from typing import Any

from graphguard.batch import BatchDescriptor
from graphguard.errors import CaptureError, ConfigurationError
from graphguard.session import process_rank
from graphguard.vllm import capturing
from graphguard.vllm.captures import Choice
from graphguard.vllm.worker_guard import WorkerGuard


def recapture(runner: Any, worker: WorkerGuard, role: str, graph: int) -> str:  # noqa: ANN401
    """Capture a graph again, and compare it with the other ranks'. All workers have to call it.

    Args:
        runner: vLLM's V1 runner.
        worker: The guard of this worker.
        role: ``target`` or ``drafter``.
        graph: The id of the graph.

    Returns:
        What was captured, in words.

    Raises:
        ConfigurationError: If there is no such graph, or a step is not finished.
        CaptureError: If it was not captured. It is quarantined on every rank that says so.
        AgreementError: When enforcing, if the ranks captured different things.
    """
    steps = getattr(worker, role, None)
    if steps is None or not 0 <= graph < len(steps.guard.signatures):
        raise ConfigurationError(
            f"there is no graph {graph} of {role}", hint="graphguard_report lists them"
        )
    if getattr(runner, "execute_model_state", None) is not None:
        raise ConfigurationError(
            "a step is not finished", hint="capture again when the engine is idle"
        )
    choice: Choice = steps.guard.choices[graph]
    captures = capturing.captures_of(role)
    _forget(choice, role)
    try:
        with capturing.recorded_captures():
            _capture(runner, choice)
        if choice not in captures.choices:
            raise CaptureError(
                f"rank {process_rank()[0]}: vLLM did not capture {choice} again",
                hint="a drafter's graphs are captured with the target's piecewise ones",
            )
    except Exception:
        steps.guard.quarantined.add(graph)
        raise
    old = steps.guard.signatures[graph]
    batch: BatchDescriptor = old.batch
    steps.guard.replace(graph, captures.signature(choice, old.key, batch))
    worker.seal(runner, everywhere=True)
    return str(steps.guard.signatures[graph])


def _forget(choice: Choice, role: str) -> None:
    from vllm.compilation.cuda_graph import CUDAGraphWrapper

    capturing.captures_of(role).forget(choice)
    for wrapper in list(CUDAGraphWrapper._all_instances):
        if wrapper.runtime_mode.name == choice.mode:
            wrapper.concrete_cudagraph_entries.pop(choice.descriptor, None)


def _capture(runner: Any, choice: Choice) -> None:  # noqa: ANN401 - vLLM's own
    from vllm.compilation.monitor import set_cudagraph_capturing_enabled
    from vllm.config import CUDAGraphMode
    from vllm.v1.worker import gpu_model_runner

    set_cudagraph_capturing_enabled(True)
    try:
        with gpu_model_runner.graph_capture(device=runner.device):
            runner._warmup_and_capture(
                choice.descriptor, cudagraph_runtime_mode=CUDAGraphMode[choice.mode]
            )
    finally:
        set_cudagraph_capturing_enabled(False)
