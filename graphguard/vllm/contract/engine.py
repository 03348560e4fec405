"""What surrounds the runners: start-up in the worker, the scheduler, the metrics."""

from __future__ import annotations

from graphguard.vllm.contract.expectation import Expectation, Part, Variant

_ALL = ("0.20.1", "0.26.0", "0.32.0", "0.33.0")
_WORKER = "vllm.v1.worker.gpu_worker"
_WORKER_BASE = "vllm.v1.worker.worker_base"
_SCHEDULER = "vllm.v1.core.sched.scheduler"
_ASYNC_SCHEDULER = "vllm.v1.core.sched.async_scheduler"
_OUTPUT = "vllm.v1.core.sched.output"
_METRICS = "vllm.v1.metrics.prometheus"

# Asked for while a worker's module is still being imported: neither a CPU worker, which imports
# this one, nor a runner may be expected here.
CAPTURE = (
    Variant(
        part=Part.CAPTURE,
        name="worker",
        versions=_ALL,
        expectations=(
            Expectation(module=_WORKER, path="Worker.compile_or_warm_up_model"),
            Expectation(module=_WORKER, path="Worker", sets=("model_runner",)),
            Expectation(
                module=_WORKER, path="Worker.execute_model", begins_with=("scheduler_output",)
            ),
            Expectation(
                module=_WORKER_BASE,
                path="WorkerBase",
                sets=("model_runner", "rank", "local_rank", "vllm_config"),
            ),
            Expectation(
                module=_WORKER_BASE,
                path="WorkerWrapperBase.init_worker",
                uses=("load_general_plugins", "worker_extension_cls"),
            ),
            # To capture a graph again, on all ranks and between steps.
            Expectation(
                module="vllm.distributed.parallel_state",
                path="graph_capture",
                begins_with=("device",),
            ),
            Expectation(
                module="vllm.compilation.monitor",
                path="set_cudagraph_capturing_enabled",
                begins_with=("enabled",),
            ),
            Expectation(
                module="vllm.compilation.monitor", path="validate_cudagraph_capturing_enabled"
            ),
        ),
    ),
)

_SCHEDULED = (
    "running",
    "need_mamba_block_aligned_split",
    "_mamba_block_aligned_split",
    "max_num_scheduled_tokens",
)

_STEPS = (
    Expectation(
        module=_SCHEDULER,
        path="Scheduler",
        sets=(
            "running",
            "num_spec_tokens",
            "max_model_len",
            "max_num_running_reqs",
            "max_num_scheduled_tokens",
            "prev_step_scheduled_req_ids",
            "get_request_counts",
        ),
    ),
    Expectation(
        module=_SCHEDULER,
        path="Scheduler._mamba_block_aligned_split",
        begins_with=("request", "num_new_tokens"),
    ),
    Expectation(
        module=_SCHEDULER,
        path="Scheduler.update_from_output",
        begins_with=("scheduler_output", "model_runner_output"),
    ),
    Expectation(module=_ASYNC_SCHEDULER, path="AsyncScheduler.schedule", uses=_SCHEDULED),
    Expectation(
        module=_ASYNC_SCHEDULER,
        path="AsyncScheduler._update_after_schedule",
        begins_with=("scheduler_output",),
    ),
    Expectation(
        module=_OUTPUT,
        path="SchedulerOutput",
        fields=(
            "scheduled_new_reqs",
            "scheduled_cached_reqs",
            "num_scheduled_tokens",
            "total_num_scheduled_tokens",
            "scheduled_spec_decode_tokens",
        ),
    ),
    Expectation(
        module="vllm.v1.request",
        path="Request",
        sets=(
            "request_id",
            "spec_token_ids",
            "num_computed_tokens",
            "num_output_placeholders",
            "num_prompt_tokens",
            "max_tokens",
            "num_tokens",
            "num_tokens_with_spec",
            "is_prefill_chunk",
        ),
    ),
)


def _admitting(limit: str) -> Expectation:
    """Return that a scheduler admits requests up to a limit of that name."""
    return Expectation(module=_SCHEDULER, path="Scheduler.schedule", uses=(limit,))


SCHEDULER = (
    Variant(
        part=Part.SCHEDULER,
        name="active-requests",
        versions=("0.32.0", "0.33.0"),
        expectations=(*_STEPS, _admitting("max_num_active_reqs")),
    ),
    Variant(
        part=Part.SCHEDULER,
        name="running-requests",
        versions=("0.20.1", "0.26.0"),
        expectations=(*_STEPS, _admitting("max_num_running_reqs")),
    ),
)

METRICS = (
    Variant(
        part=Part.METRICS,
        name="prometheus",
        versions=_ALL,
        expectations=(
            Expectation(module=_METRICS, path="setup_multiprocess_prometheus"),
            Expectation(module=_METRICS, path="get_prometheus_registry"),
            # Metrics whose names begin with vLLM's own prefix would be taken out here.
            Expectation(module=_METRICS, path="unregister_vllm_metrics", uses=("unregister",)),
            Expectation(module=_METRICS, path="shutdown_prometheus"),
        ),
    ),
)

# Asked for while a proposer is still being imported: nothing of a runner may be expected here. What
# is hooked in them is expected by their own parts.
DATA_PARALLEL = (
    Variant(
        part=Part.DATA_PARALLEL,
        name="groups",
        versions=_ALL,
        expectations=(
            Expectation(module="vllm.distributed.parallel_state", path="get_dp_group"),
            Expectation(
                module="vllm.distributed.parallel_state",
                path="initialize_model_parallel",
                uses=("_DP", "_EP", "is_moe"),
            ),
            Expectation(
                module="vllm.distributed.parallel_state",
                path="GroupCoordinator",
                sets=("unique_name", "ranks", "rank_in_group", "world_size", "cpu_group"),
            ),
            Expectation(
                module="vllm.config",
                path="ParallelConfig",
                fields=("data_parallel_size", "enable_elastic_ep"),
            ),
            Expectation(module="vllm.config", path="ModelConfig.is_moe"),
            Expectation(
                module="vllm.config", path="VllmConfig", fields=("parallel_config", "model_config")
            ),
        ),
    ),
)
