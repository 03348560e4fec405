"""The drafters of the V2 runner: for each version its own modules and classes."""

from __future__ import annotations

from graphguard.vllm.contract.expectation import Expectation, Part, Variant
from graphguard.vllm.contract.runner_v2 import LORA_DESCRIPTOR

_DRAFTERS = "vllm.v1.worker.gpu.spec_decode."

_TWO_MANAGERS = ("prefill_cudagraph_manager", "decode_cudagraph_manager")
_PROPOSED = ("input_batch", "attn_metadata", "slot_mappings")


def _speculator(module: str, name: str, prefill: str) -> tuple[Expectation, ...]:
    """Return what a speculator with a manager for each kind of pass must look like."""
    return (
        Expectation(module=module, path=name, sets=(*_TWO_MANAGERS, "num_speculative_steps")),
        Expectation(
            module=module,
            path=f"{name}.init_cudagraph_manager",
            begins_with=("cudagraph_mode",),
            uses=_TWO_MANAGERS,
        ),
        Expectation(
            module=module,
            path=f"{name}.propose",
            begins_with=_PROPOSED,
            parameters=("dummy_run",),
            uses=("dispatch_cg_and_sync_dp", "prefill_cudagraph_manager", "run_fullgraph"),
        ),
        *_called_by_name(module),
        Expectation(module=module, path="set_forward_context"),
        Expectation(
            module=module, path=f"{name}.{prefill}", begins_with=("num_reqs", "num_tokens")
        ),
    )


def _called_by_name(module: str) -> tuple[Expectation, ...]:
    """Return what a speculator's module imports by name, and must therefore be wrapped there."""
    return (
        Expectation(
            module=module,
            path="dispatch_cg_and_sync_dp",
            begins_with=("cudagraph_manager",),
            uses=("dispatch",),
        ),
        Expectation(module=module, path="set_forward_context"),
    )


def _managers(module: str, name: str) -> tuple[Expectation, ...]:
    return (
        Expectation(module=module, path=name, sets=("graphs", "_capture_descs")),
        Expectation(
            module=module, path=f"{name}.capture", begins_with=("forward_fn",), uses=("super",)
        ),
    )


_TARGET_DEPENDENT = _DRAFTERS + "target_dependent_ar."
_AUTOREGRESSIVE = _DRAFTERS + "autoregressive."
_MULTI_MODULE = _DRAFTERS + "multi_module_mtp.speculator"
_EAGLE = _DRAFTERS + "eagle."

# Asked for while the module of a drafter that inherits, as MTP's does, is still being imported:
# nothing of it may be expected here.
V2_DRAFTER = (
    Variant(
        part=Part.V2_DRAFTER,
        name="target-dependent",
        versions=("0.32.0", "0.33.0"),
        expectations=(
            *_managers(_TARGET_DEPENDENT + "cudagraph_utils", "SpeculatorCudaGraphManager"),
            Expectation(
                # After it was dispatched, a decode's descriptor becomes one of this kind.
                module=_TARGET_DEPENDENT + "cudagraph_utils",
                path="SpeculatorBatchDescriptor",
                fields=(*LORA_DESCRIPTOR, "num_speculative_tokens"),
            ),
            Expectation(
                module=_TARGET_DEPENDENT + "cudagraph_utils",
                path="SpeculatorCudaGraphManager.specialize_spec_tokens",
                begins_with=("desc", "num_speculative_tokens"),
            ),
            *_speculator(
                _TARGET_DEPENDENT + "speculator", "TargetDependentARSpeculator", "_prefill"
            ),
            Expectation(
                module=_TARGET_DEPENDENT + "speculator",
                path="TargetDependentARSpeculator.capture",
                uses=_TWO_MANAGERS,
            ),
            *_called_by_name(_MULTI_MODULE),
            Expectation(
                module=_MULTI_MODULE, path="MultiModuleMTPSpeculator", sets=("cudagraph_manager",)
            ),
            Expectation(
                module=_MULTI_MODULE,
                path="MultiModuleMTPSpeculator.propose",
                begins_with=_PROPOSED,
                uses=("dispatch_cg_and_sync_dp", "cudagraph_manager", "run_fullgraph"),
            ),
        ),
    ),
    Variant(
        part=Part.V2_DRAFTER,
        name="autoregressive",
        versions=("0.26.0",),
        expectations=(
            *_managers(_AUTOREGRESSIVE + "cudagraph_utils", "SpeculatorCudaGraphManager"),
            *_speculator(_AUTOREGRESSIVE + "speculator", "AutoRegressiveSpeculator", "_prefill"),
            Expectation(
                module=_AUTOREGRESSIVE + "speculator",
                path="AutoRegressiveSpeculator.capture",
                uses=_TWO_MANAGERS,
            ),
        ),
    ),
    Variant(
        part=Part.V2_DRAFTER,
        name="eagle",
        versions=("0.20.1",),
        expectations=(
            *_managers(_EAGLE + "cudagraph", "EagleCudaGraphManager"),
            *_speculator(_EAGLE + "speculator", "EagleSpeculator", "prefill"),
            Expectation(
                module=_EAGLE + "speculator",
                path="EagleSpeculator.capture_model",
                uses=_TWO_MANAGERS,
            ),
        ),
    ),
)
