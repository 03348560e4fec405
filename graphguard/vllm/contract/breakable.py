"""Graphs that are broken into segments, with eager code between them."""

from __future__ import annotations

from graphguard.vllm.contract.expectation import Expectation, Part, Variant
from graphguard.vllm.contract.runner_v1 import FORWARD_CONTEXT, MODES

_BREAKABLE = "vllm.compilation.breakable_cudagraph"

_SEGMENTS = (
    *MODES,
    *FORWARD_CONTEXT,
    Expectation(module=_BREAKABLE, path="BreakableCUDAGraphWrapper", sets=("entries", "runnable")),
    Expectation(
        module=_BREAKABLE,
        path="BreakableCUDAGraphWrapper.__call__",
        uses=("get_forward_context", "entries", "_capture", "_replay"),
    ),
    Expectation(
        module=_BREAKABLE,
        path="BreakableCUDAGraphWrapper._capture",
        begins_with=("entry", "args", "kwargs"),
    ),
    Expectation(
        module=_BREAKABLE,
        path="BreakableCUDAGraphWrapper._replay",
        begins_with=("entry", "args", "kwargs"),
    ),
    Expectation(module=_BREAKABLE, path="BreakableCUDAGraphWrapper.clear_graphs"),
    Expectation(module=_BREAKABLE, path="BreakableCUDAGraphWrapper.clear_all_graphs"),
    Expectation(
        module=_BREAKABLE,
        path="_BreakableEntry",
        fields=("batch_descriptor", "capture", "output", "input_addresses"),
    ),
    Expectation(module=_BREAKABLE, path="BreakableCUDAGraphCapture", sets=("segments",)),
    Expectation(module=_BREAKABLE, path="BreakableCUDAGraphCapture.add_eager", begins_with=("fn",)),
    Expectation(module=_BREAKABLE, path="BreakableCUDAGraphCapture.add_eager", begins_with=("fn",)),
    Expectation(module=_BREAKABLE, path="is_breakable_cudagraph_enabled"),
)

BREAKABLE = (
    Variant(
        part=Part.BREAKABLE,
        name="by-key",
        versions=("0.33.0",),
        expectations=(
            *_SEGMENTS,
            Expectation(
                module=_BREAKABLE,
                path="BreakableCUDAGraphWrapper",
                parameters=("runnable", "vllm_config", "runtime_mode", "key_fn"),
                sets=("runtime_mode", "key_fn"),
            ),
        ),
    ),
    Variant(
        part=Part.BREAKABLE,
        name="by-mode",
        versions=("0.32.0",),
        expectations=(
            *_SEGMENTS,
            Expectation(
                module=_BREAKABLE,
                path="BreakableCUDAGraphWrapper",
                parameters=("runnable", "vllm_config", "runtime_mode"),
                sets=("runtime_mode",),
            ),
        ),
    ),
    Variant(
        part=Part.BREAKABLE,
        name="any-mode",
        versions=("0.26.0",),
        expectations=(
            *_SEGMENTS,
            Expectation(
                module=_BREAKABLE,
                path="BreakableCUDAGraphWrapper",
                begins_with=("runnable", "vllm_config"),
            ),
        ),
    ),
)
