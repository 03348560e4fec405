"""The padded slots of the V2 runner's full graphs, looked at just before one is replayed.

Of the target the CPU sees an upper bound of the lengths and where the queries start; the rest, and
all of a drafter, is sampled. A drafter's first pass reads what the target's graph has read. Steps
in micro-batches and those of prefill context parallelism have their metadata elsewhere, and are not
looked at.
"""

from __future__ import annotations

import functools
import inspect
from typing import Any

from graphguard.vllm.model_guard import ModelGuard
from graphguard.vllm.padding import PaddingFinding, violations
from graphguard.vllm.padding_checks import PaddingChecks
from graphguard.vllm.padding_views import Extent
from graphguard.vllm.padding_views_v2 import (
    extent_of_v2,
    tensors_of_v2,
    tensors_of_v2_drafter,
    view_of_v2,
)
from graphguard.vllm.patches import Function, wrap
from graphguard.vllm.worker_guard import worker_guard

LOOK = "_graphguard_look"
"""Where a graph manager keeps what looks at the padded slots of its steps."""


class _Prepared:
    """What vLLM has prepared for the step that runs."""

    batch: Any = None
    attn_metadata: Any = None


_prepared = _Prepared()


def install() -> None:
    """Put the hook in place. Called again, it does nothing."""
    from vllm.v1.worker.gpu.model_runner import GPUModelRunner

    wrap(GPUModelRunner, "prepare_inputs", _prepare_inputs)


def forget() -> None:
    """Let go of what was prepared for a step: it holds memory of the GPU."""
    _prepared.batch = _prepared.attn_metadata = None


def look_at_target(runner: Any, guard: ModelGuard) -> None:  # noqa: ANN401 - vLLM's own
    """Look at the padded slots of the target from now on."""
    if getattr(runner, "pcp_manager", None) is not None:
        return
    state = type(getattr(runner, "model_state", None))
    if inspect.getattr_static(state, "prepare_attn", None) is not None:
        wrap(state, "prepare_attn", _prepare_attn)
    checks = PaddingChecks(guard)
    look = functools.partial(checks.look, _of_target, checks, runner)
    setattr(runner.cudagraph_manager, LOOK, look)


def look_at_drafter(speculator: Any, manager: Any, guard: ModelGuard) -> None:  # noqa: ANN401
    """Look at the padded slots of a drafter's decodes from now on.

    Args:
        speculator: vLLM's speculator.
        manager: Its graph manager for decodes.
        guard: The guard of the drafter.
    """
    checks = PaddingChecks(guard)
    setattr(manager, LOOK, functools.partial(checks.look, _of_drafter, checks, speculator))


def _of_target(
    checks: PaddingChecks,
    runner: Any,  # noqa: ANN401 - vLLM's own
    desc: Any,  # noqa: ANN401 - vLLM's own
    extent: Extent,
) -> list[PaddingFinding]:
    del extent
    batch = _prepared.batch
    if batch is None or getattr(desc, "num_ubatches", 1) > 1:
        return []
    findings = violations(view_of_v2(batch, desc))
    extent = extent_of_v2(batch, desc)
    return findings + checks.sampled(tensors_of_v2, runner, extent, _prepared.attn_metadata)


def _of_drafter(
    checks: PaddingChecks,
    speculator: Any,  # noqa: ANN401 - vLLM's own
    desc: Any,  # noqa: ANN401 - vLLM's own
    extent: Extent,
) -> list[PaddingFinding]:
    del desc
    return checks.sampled(tensors_of_v2_drafter, speculator, extent)


def _prepare_inputs(original: Function) -> Function:
    worker = worker_guard()

    def prepare_inputs(self: Any, *args: Any, **kwargs: Any) -> Any:  # noqa: ANN401
        result = original(self, *args, **kwargs)
        if worker.target is not None and worker.target.in_step:
            _prepared.batch = result
        return result

    return prepare_inputs


def _prepare_attn(original: Function) -> Function:
    def prepare_attn(self: Any, *args: Any, **kwargs: Any) -> Any:  # noqa: ANN401
        result = original(self, *args, **kwargs)
        # None where a dummy run or a capture prepares something that nobody looks at.
        if _prepared.batch is not None:
            _prepared.attn_metadata = result
        return result

    return prepare_attn
