"""The hook that sees a step whose drafter is not run, which is the same on both runners."""

from __future__ import annotations

from typing import Any

from graphguard.batch import BatchDescriptor
from graphguard.vllm.patches import Function, wrap
from graphguard.vllm.worker_guard import worker_guard


def install(runner: type[Any]) -> None:
    """Put the hook in place in a runner's class, which must be imported."""
    wrap(runner, "sample_tokens", _sample_tokens)


def _sample_tokens(original: Function) -> Function:
    worker = worker_guard()

    def sample_tokens(self: Any, *args: Any, **kwargs: Any) -> Any:  # noqa: ANN401
        steps = worker.drafter
        # None after steps that ran no model: there was nothing to draft for.
        state = getattr(self, "execute_model_state", None)
        if steps is None or not worker.sealed or state is None:
            return original(self, *args, **kwargs)
        worker.drafted = False
        result = original(self, *args, **kwargs)
        if not worker.drafted and (batch := worker.batch) is not None:
            # The hooks of the V1 runner keep its sizes: making a descriptor takes longer.
            batch = batch if isinstance(batch, BatchDescriptor) else steps.batch(*batch)
            steps.guard.leave_out(batch)
        return result

    return sample_tokens
