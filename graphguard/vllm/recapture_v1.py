"""Capturing one graph of the V1 runner again; see :mod:`graphguard.vllm.recapture`."""

from __future__ import annotations

from typing import Any

from graphguard.vllm import capturing
from graphguard.vllm.captures import Captures, Choice


def capture_again(runner: Any, steps: Any, role: str, graph: int) -> Captures:  # noqa: ANN401
    """Drop a graph and capture it again.

    Args:
        runner: vLLM's V1 runner.
        steps: The steps of the model.
        role: ``target`` or ``drafter``.
        graph: The id of the graph.

    Returns:
        The captures of the model.
    """
    choice: Choice = steps.guard.choices[graph]
    captures = capturing.captures_of(role)
    _forget(choice, captures)
    with capturing.recorded_captures():
        _capture(runner, choice)
    return captures


def _forget(choice: Choice, captures: Captures) -> None:
    from vllm.compilation.cuda_graph import CUDAGraphWrapper

    captures.forget(choice)
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
