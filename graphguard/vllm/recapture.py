"""Capturing a graph again while the engine serves.

It is a collective: custom all-reduce exchanges the addresses of what was captured. So it is only
done when all workers are told to, between two steps, and inside vLLM's own capture context.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from graphguard.errors import CaptureError, ConfigurationError
from graphguard.session import process_rank
from graphguard.vllm.captures import Captures, Choice
from graphguard.vllm.worker_guard import WorkerGuard

CaptureAgain = Callable[[Any, Any, str, int], Captures]
"""Takes runner, steps, role and graph; drops the graph, captures it and returns the captures."""

_RUNNER_V2 = "vllm.v1.worker.gpu.model_runner"


def recapture(runner: Any, worker: WorkerGuard, role: str, graph: int) -> str:  # noqa: ANN401
    """Capture a graph again, and compare it with the other ranks'. All workers have to call it.

    Args:
        runner: vLLM's runner.
        worker: The guard of this worker.
        role: ``target`` or ``drafter``.
        graph: The id of the graph.

    Returns:
        What was captured, in words.

    Raises:
        ConfigurationError: If there is no such graph, if a step is not finished, or if graphs of
            its kind are not captured again.
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
    try:
        captures = _of_generation(runner)(runner, steps, role, graph)
        if choice not in captures.choices:
            raise CaptureError(
                f"rank {process_rank()[0]}: vLLM did not capture {choice} again",
                hint="a V1 drafter's graphs are captured with the target's piecewise ones",
            )
    except ConfigurationError:
        # Nothing was touched.
        raise
    except Exception:
        steps.guard.quarantined.add(graph)
        raise
    old = steps.guard.signatures[graph]
    steps.guard.replace(graph, captures.signature(choice, old.key, old.batch))
    worker.seal(runner, everywhere=True)
    return str(steps.guard.signatures[graph])


def _of_generation(runner: Any) -> CaptureAgain:  # noqa: ANN401 - vLLM's own
    if any(base.__module__ == _RUNNER_V2 for base in type(runner).__mro__):
        from graphguard.vllm.recapture_v2 import capture_again as in_v2

        return in_v2
    from graphguard.vllm.recapture_v1 import capture_again as in_v1

    return in_v1
