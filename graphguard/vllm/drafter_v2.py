"""The hooks of the V2 runner's speculators: those that run an MTP or EAGLE drafter.

A speculator runs the drafter in passes, each with a graph manager and graphs of its own, and each
is a step of its own: first over all tokens of the target's step, then once for each draft but the
first, which some versions put into one graph.
"""

from __future__ import annotations

import functools
import sys
from typing import Any

from graphguard.batch import BatchDescriptor
from graphguard.vllm import armed, captures_v2, padding_v2, skipped_drafts
from graphguard.vllm.dispatching_v2 import Request
from graphguard.vllm.patches import Function, wrap
from graphguard.vllm.runner_v2 import ATTRIBUTE, PADDING, launching
from graphguard.vllm.steps_v2 import StepsV2
from graphguard.vllm.worker_guard import WorkerGuard, worker_guard

PART = "v2-drafter"
_DRAFTERS = "vllm.v1.worker.gpu.spec_decode."

SPECULATORS = {
    # 0.20; later ones have a class of this name that inherits.
    f"{_DRAFTERS}eagle.speculator": "EagleSpeculator",
    # 0.26
    f"{_DRAFTERS}autoregressive.speculator": "AutoRegressiveSpeculator",
    # 0.32
    f"{_DRAFTERS}target_dependent_ar.speculator": "TargetDependentARSpeculator",
    f"{_DRAFTERS}multi_module_mtp.speculator": "MultiModuleMTPSpeculator",
}
"""Modules of vLLM's versions and the speculators in them."""

PREFILL, DECODE, ALL = "prefill", "decode", "all drafts"
"""Passes: the first draft, the further drafts, and all drafts where one pass makes them."""

MANAGERS = {
    "prefill_cudagraph_manager": PREFILL,
    "decode_cudagraph_manager": DECODE,
    "cudagraph_manager": ALL,
}
_PASS = "_graphguard_pass"  # noqa: S105 - no password
_drafts = {"wanted": 0}


def install() -> None:
    """Put the hooks in place in the speculators that are imported."""
    from vllm.v1.worker.gpu.model_runner import GPUModelRunner

    skipped_drafts.install(GPUModelRunner)
    for name, speculator in SPECULATORS.items():
        module = sys.modules.get(name)
        found = getattr(module, speculator, None)
        if found is not None and "propose" in vars(found):
            wrap(found, "propose", _propose)
            wrap(module, "dispatch_cg_and_sync_dp", _dispatch_cg_and_sync_dp)
            wrap(module, "set_forward_context", _set_forward_context)


def take_captures(runner: Any, worker: WorkerGuard) -> None:  # noqa: ANN401 - vLLM's own
    """Make signatures of what the drafter captured, and let its managers' choices be checked."""
    from vllm.config import CUDAGraphMode

    speculator = runner.speculator
    if speculator is None:
        return
    if not _is_known(speculator):
        armed.not_armed(PART, [f"the speculator {type(speculator).__name__} is not known"])
        return
    steps: StepsV2 = worker.steps("drafter", StepsV2.of)
    for attribute, name in MANAGERS.items():
        manager = getattr(speculator, attribute, None)
        if manager is not None:
            steps.take(captures_v2.captures_of(manager), CUDAGraphMode, name)
            setattr(manager, ATTRIBUTE, steps)
            setattr(manager, _PASS, name)
            if name == DECODE and armed.is_armed(PADDING):
                padding_v2.look_at_drafter(speculator, manager, steps.guard)


def _is_known(speculator: Any) -> bool:  # noqa: ANN401 - vLLM's own
    ways = {(base.__module__, base.__name__) for base in type(speculator).__mro__}
    return not ways.isdisjoint(SPECULATORS.items())


def _propose(original: Function) -> Function:
    worker = worker_guard()

    def propose(self: Any, *args: Any, **kwargs: Any) -> Any:  # noqa: ANN401
        steps: StepsV2 | None = worker.drafter
        if steps is None or not worker.sealed or kwargs.get("dummy_run"):
            return original(self, *args, **kwargs)
        wanted = kwargs.get("num_speculative_tokens")
        _drafts["wanted"] = self.num_speculative_steps if wanted is None else wanted
        steps.in_step = worker.drafted = True
        try:
            return original(self, *args, **kwargs)
        finally:
            steps.in_step = False

    return propose


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
            _refine(cudagraph_manager),
        )
        steps: StepsV2 | None = worker.drafter
        name: str | None = getattr(cudagraph_manager, _PASS, None)
        if steps is None or not steps.in_step or name is None:
            return request.unguarded()
        batch = _batch(worker, steps, request, name)
        if batch is None:
            return request.unguarded()
        # The first pass reads the target's metadata, which is that of a full graph if the target
        # runs one. vLLM itself never lets one of them run a graph for decodes and the other not.
        target: StepsV2 | None = worker.target
        tied = name == PREFILL and target is not None and target.held_back
        runs_as = None if name == DECODE or target is None else target.guard.runs_as
        return steps.dispatch(request, batch, name, tied=tied, runs_as=runs_as)

    return dispatch_cg_and_sync_dp


def _refine(manager: Any) -> Function | None:  # noqa: ANN401 - vLLM's own
    """Return what a speculator makes of a dispatched decode: a graph for that many drafts."""
    specialize: Function | None = getattr(manager, "specialize_spec_tokens", None)
    if specialize is None or getattr(manager, _PASS, None) != DECODE:
        return None
    return functools.partial(specialize, num_speculative_tokens=_drafts["wanted"])


def _batch(
    worker: WorkerGuard, steps: StepsV2, request: Request, name: str
) -> BatchDescriptor | None:
    """Return what a pass of the drafter runs, or None if that cannot be told.

    The first pass is dispatched with the tokens that the target was padded to; what it runs is what
    the target ran.
    """
    if name != DECODE:
        batch: BatchDescriptor | None = worker.batch
        return batch
    return steps.batch(request.num_reqs, 1, request.num_reqs, 0)


def _set_forward_context(original: Function) -> Function:
    worker = worker_guard()
    return launching(original, lambda: worker.drafter)
