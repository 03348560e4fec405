"""A plugin for vLLM that counts each step of a worker, as graphguard's own does."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from graphguard.metrics import expose_in_this_process, process_metrics
from graphguard.verdict import Action, Reason
from graphguard.vllm.patches import wrap


def register() -> None:
    """Count what this process does, and show what its children do."""
    from vllm.v1.worker.worker_base import WorkerWrapperBase

    assert expose_in_this_process()
    wrap(WorkerWrapperBase, "execute_model", _counted)


def _counted(execute: Callable[..., Any]) -> Callable[..., Any]:
    def execute_model(*args: Any, **kwargs: Any) -> Any:
        metrics = process_metrics()
        assert metrics is not None
        metrics.check("target", Action.REPLAY, Reason.EXACT)
        metrics.replay_begin("target")
        try:
            return execute(*args, **kwargs)
        finally:
            metrics.replay_end("target")

    return execute_model
