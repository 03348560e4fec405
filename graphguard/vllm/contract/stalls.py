"""What a worker does, as the watchdog is told: its steps, its outputs, its start-up."""

from __future__ import annotations

from graphguard.vllm.contract.expectation import Expectation, Part, Variant

_ALL = ("0.20.1", "0.26.0", "0.32.0", "0.33.0")
_WORKER = "vllm.v1.worker.gpu_worker"
_RUNNER_V1 = "vllm.v1.worker.gpu_model_runner"
_RUNNER_V2 = "vllm.v1.worker.gpu.model_runner"
_OUTPUTS_V2 = "vllm.v1.worker.gpu.async_utils"

# Asked for while a worker's module is still being imported: neither a CPU worker, which imports
# this one, nor a runner may be expected here.
STALLS = (
    Variant(
        part=Part.STALLS,
        name="worker",
        versions=_ALL,
        expectations=(
            Expectation(
                module=_WORKER,
                path="Worker.execute_model",
                begins_with=("scheduler_output",),
                uses=("model_runner", "execute_model"),
            ),
            Expectation(
                module=_WORKER, path="Worker.sample_tokens", uses=("model_runner", "sample_tokens")
            ),
            Expectation(module=_WORKER, path="Worker.execute_dummy_batch", uses=("_dummy_run",)),
            Expectation(
                module=_WORKER,
                path="Worker.init_device",
                uses=("init_worker_distributed_environment",),
            ),
            Expectation(
                module=_WORKER, path="Worker.load_model", uses=("model_runner", "load_model")
            ),
            Expectation(
                module=_WORKER, path="Worker.determine_available_memory", uses=("profile_run",)
            ),
            Expectation(module=_WORKER, path="Worker.compile_or_warm_up_model"),
        ),
    ),
)

V1_STALLS = (
    Variant(
        part=Part.V1_STALLS,
        name="runner",
        versions=_ALL,
        expectations=(
            Expectation(module=_RUNNER_V1, path="GPUModelRunner.capture_model"),
            Expectation(module=_RUNNER_V1, path="AsyncGPUModelRunnerOutput.get_output"),
        ),
    ),
)

V2_STALLS = (
    Variant(
        part=Part.V2_STALLS,
        name="runner",
        versions=_ALL,
        expectations=(
            Expectation(module=_RUNNER_V2, path="GPUModelRunner.capture_model"),
            Expectation(module=_OUTPUTS_V2, path="AsyncOutput.get_output"),
        ),
    ),
)
