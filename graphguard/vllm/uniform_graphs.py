"""A second family of full graphs on vLLM's V1 runner: decodes of one token each.

vLLM captures full graphs for uniform batches of one query length, 1+k with k drafts. A step of
decodes without drafts then runs in piecewise graphs, or in none. ``GRAPHGUARD_UNIFORM_GRAPHS=1``
captures full graphs for these steps, too, by letting vLLM's own code dispatch, warm up and capture
as it does for a model without drafts.

A batch of ``n`` requests of one token has the descriptor ``(n tokens, n requests, uniform)``. With
drafts a uniform descriptor has at most half as many requests as tokens, so that the families
cannot be taken for each other.
"""

from __future__ import annotations

import inspect
from collections.abc import Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

from graphguard.log import logger
from graphguard.vllm.patches import Function, wrap

if TYPE_CHECKING:
    Dispatcher = Any
    """A ``vllm.v1.cudagraph_dispatcher.CudagraphDispatcher``."""
    Runner = Any
    """A ``vllm.v1.worker.gpu_model_runner.GPUModelRunner``."""
    Descriptor = Any
    """A ``vllm.forward_context.BatchDescriptor``."""

_HAS_FAMILY = "_graphguard_single_token_graphs"
_LENGTH = "uniform_decode_query_len"
_USES = (
    ("CudagraphDispatcher", "_create_padded_batch_descriptor", _LENGTH),
    ("CudagraphDispatcher", "initialize_cudagraph_keys", "add_cudagraph_key"),
    ("CudagraphDispatcher", "get_capture_descs", "cudagraph_keys"),
    ("GPUModelRunner", "_determine_batch_execution_and_padding", _LENGTH),
    ("GPUModelRunner", "_dummy_run", _LENGTH),
    ("GPUModelRunner", "_warmup_and_capture", "_dummy_run"),
)
"""Which function must go by which name, for the family to be captured and chosen."""


def missing() -> list[str]:
    """Return what vLLM's V1 runner does not have as the second family needs it, in words."""
    owners = {owner.__name__: owner for owner in _owners()}
    lacking = []
    for owner, name, used in _USES:
        function = inspect.unwrap(getattr(owners[owner], name, missing))
        if function is missing:
            lacking.append(f"{owner} has no {name}")
        elif used not in function.__code__.co_names:
            lacking.append(f"{owner}.{name} does not use {used}")
    return lacking


def install() -> list[str]:
    """Make vLLM capture and choose the second family.

    Returns:
        Why it cannot; empty where it was done.
    """
    lacking = missing()
    if lacking:
        return lacking
    dispatcher, runner = _owners()
    wrap(dispatcher, "initialize_cudagraph_keys", _adds_family)
    wrap(dispatcher, "get_capture_descs", _orders_families)
    wrap(runner, "_warmup_and_capture", _captures_family)
    wrap(runner, "_determine_batch_execution_and_padding", _chooses_family)
    return []


def _owners() -> tuple[type[Any], type[Any]]:
    from vllm.v1.cudagraph_dispatcher import CudagraphDispatcher
    from vllm.v1.worker.gpu_model_runner import GPUModelRunner

    return CudagraphDispatcher, GPUModelRunner


def not_for(vllm_config: Any) -> str | None:  # noqa: ANN401 - vLLM's VllmConfig
    """Return why a model does not get the second family, or None if it does."""
    parallel = getattr(vllm_config, "parallel_config", None)
    if getattr(parallel, "data_parallel_size", 1) > 1:
        return "ranks of a data-parallel group agree on a size that only one of them may have"
    model = getattr(vllm_config, "model_config", None)
    if getattr(model, "is_hybrid", False) or getattr(model, "is_attention_free", False):
        return "layers with a state take a step without drafts for another kind of step"
    if getattr(model, "is_encoder_decoder", False):
        return "it has an encoder"
    return None


def _adds_family(original: Function) -> Function:
    def initialize_cudagraph_keys(
        dispatcher: Dispatcher,
        cudagraph_mode: Any,  # noqa: ANN401 - vLLM's CUDAGraphMode
        uniform_decode_query_len: int = 1,
    ) -> None:
        original(dispatcher, cudagraph_mode, uniform_decode_query_len)
        setattr(dispatcher, _HAS_FAMILY, False)
        drafts = uniform_decode_query_len > 1
        if drafts and cudagraph_mode.decode_mode().name == "FULL":
            _add_family(dispatcher, cudagraph_mode)

    return initialize_cudagraph_keys


def _add_family(dispatcher: Dispatcher, mode: Any) -> None:  # noqa: ANN401
    why = not_for(dispatcher.vllm_config)
    if why is None and not mode.separate_routine():
        why = "its full graphs take batches of any lengths"
    if why is not None:
        logger().warning("graphguard: no graphs for decodes of one token: %s", why)
        return
    full = mode.decode_mode()
    most = dispatcher.vllm_config.scheduler_config.max_num_seqs
    sizes = [n for n in dispatcher.compilation_config.cudagraph_capture_sizes if n <= most]
    with _of_one_token(dispatcher):
        for size in sizes:
            for loras in dispatcher._get_lora_cases():
                descriptor = dispatcher._create_padded_batch_descriptor(
                    size, True, loras > 0, loras
                )
                dispatcher.add_cudagraph_key(full, descriptor)
    setattr(dispatcher, _HAS_FAMILY, bool(sizes))
    logger().info("graphguard: full graphs for decodes of one token, too: %s", sizes)


def _orders_families(original: Function) -> Function:
    def get_capture_descs(dispatcher: Dispatcher) -> list[tuple[Any, list[Descriptor]]]:
        found: list[tuple[Any, list[Descriptor]]] = original(dispatcher)
        if getattr(dispatcher, _HAS_FAMILY, False):
            for _, descriptors in found:
                # Every rank must capture in the same order, and vLLM sorts by tokens only.
                descriptors.sort(key=_largest_first, reverse=True)
        return found

    return get_capture_descs


def _largest_first(descriptor: Descriptor) -> tuple[int, int, int]:
    return descriptor.num_tokens, descriptor.num_active_loras, descriptor.num_reqs or 0


def _captures_family(original: Function) -> Function:
    def warmup_and_capture(
        runner: Runner,
        desc: Descriptor,
        *arguments: Any,  # noqa: ANN401
        **named: Any,  # noqa: ANN401
    ) -> Any:  # noqa: ANN401
        if not (desc.uniform and desc.num_reqs == desc.num_tokens and _has_family(runner)):
            return original(runner, desc, *arguments, **named)
        with _of_one_token(runner, runner.cudagraph_dispatcher):
            return original(runner, desc, *arguments, **named)

    return warmup_and_capture


def _chooses_family(original: Function) -> Function:
    def determine_batch_execution_and_padding(
        runner: Runner,
        num_tokens: int,
        num_reqs: int,
        num_scheduled_tokens_np: Any,  # noqa: ANN401
        max_num_scheduled_tokens: int,
        *arguments: Any,  # noqa: ANN401
        **named: Any,  # noqa: ANN401
    ) -> Any:  # noqa: ANN401
        step = (num_tokens, num_reqs, num_scheduled_tokens_np, max_num_scheduled_tokens)
        if (
            max_num_scheduled_tokens != 1
            or num_tokens != num_reqs
            or not _has_family(runner)
            or named.get("force_uniform_decode") is not None
            or not _all_past_prompts(runner, num_reqs)
        ):
            return original(runner, *step, *arguments, **named)
        with _of_one_token(runner, runner.cudagraph_dispatcher):
            return original(runner, *step, *arguments, **named)

    return determine_batch_execution_and_padding


def _has_family(runner: Runner) -> bool:
    return bool(getattr(runner.cudagraph_dispatcher, _HAS_FAMILY, False))


def _all_past_prompts(runner: Runner, num_reqs: int) -> bool:
    batch = runner.input_batch
    computed, prompts = batch.num_computed_tokens_cpu, batch.num_prompt_tokens
    return bool((computed[:num_reqs] >= prompts[:num_reqs]).all())


@contextmanager
def _of_one_token(*owners: Any) -> Iterator[None]:  # noqa: ANN401
    """Let runner and dispatcher take a uniform decode for one of one token."""
    kept = [getattr(owner, _LENGTH) for owner in owners]
    try:
        for owner in owners:
            setattr(owner, _LENGTH, 1)
        yield
    finally:
        for owner, length in zip(owners, kept, strict=True):
            setattr(owner, _LENGTH, length)
