"""What each version of vLLM has, and what is said of it when it is changed."""

from __future__ import annotations

from typing import NamedTuple

from tests.vllm import wheels

INSTALLED = "0.32.0"
VERSIONS = (*wheels.CUDA_VERSIONS, INSTALLED)

HOLDS = {
    "v1-target": ("dispatcher", "dispatcher", "dispatcher", "dispatcher"),
    "v1-drafter": ("drafts-by-config", "drafts-by-step", "drafts-by-step", "drafts-by-step"),
    "v1-padding": ("buffers", "buffers", "buffers", "buffers"),
    "v2-target": ("by-shape", "by-shape-and-loras", "by-phase", "by-phase"),
    "v2-drafter": ("eagle", "autoregressive", "target-dependent", "target-dependent"),
    "v2-padding": ("input-batch", "input-batch", "input-batch", "input-batch"),
    "breakable": (None, "any-mode", "by-key", "by-mode"),
    "piecewise": ("wrapper", "wrapper", "wrapper", "wrapper"),
    "collectives": ("returned", "returned", "into-output", "into-output"),
    "scheduler": ("running-requests", "running-requests", "active-requests", "active-requests"),
    "capture": ("worker", "worker", "worker", "worker"),
    "metrics": ("prometheus", "prometheus", "prometheus", "prometheus"),
    "uniform-graphs": ("by-length", "by-length", "by-length", "by-length"),
    "data-parallel": ("groups", "groups", "groups", "groups"),
    "stalls": ("worker", "worker", "worker", "worker"),
    "v1-stalls": ("runner", "runner", "runner", "runner"),
    "v2-stalls": ("runner", "runner", "runner", "runner"),
}
"""The variant of each part that a version has; the versions in the order of ``VERSIONS``."""

NOT_THERE = "vllm.compilation.breakable_cudagraph"


class Case(NamedTuple):
    """A change of vLLM, and what is said of it."""

    part: str
    change: str
    module: str
    path: str
    name: str
    sentence: str
    versions: tuple[str, ...] = VERSIONS


_DISPATCHER = "vllm.v1.cudagraph_dispatcher"
_RUNNER_V1 = "vllm.v1.worker.gpu_model_runner"
_RUNNER_V2 = "vllm.v1.worker.gpu.model_runner"
_MANAGERS = "vllm.v1.worker.gpu.cudagraph_utils"
_PROPOSER = "vllm.v1.spec_decode.llm_base_proposer"
_STATE = "vllm.distributed.parallel_state"

CASES = (
    Case(
        "v1-target",
        "rename",
        _DISPATCHER,
        "CudagraphDispatcher.dispatch",
        "uniform_decode",
        "vllm.v1.cudagraph_dispatcher.CudagraphDispatcher.dispatch "
        "has no parameter 'uniform_decode'",
    ),
    Case(
        "v1-target",
        "delete",
        _RUNNER_V1,
        "GPUModelRunner._determine_batch_execution_and_padding",
        "",
        "vllm.v1.worker.gpu_model_runner.GPUModelRunner "
        "has no '_determine_batch_execution_and_padding'",
    ),
    Case(
        "v1-target",
        "empty",
        _DISPATCHER,
        "CudagraphDispatcher.initialize_cudagraph_keys",
        "",
        "vllm.v1.cudagraph_dispatcher.CudagraphDispatcher.initialize_cudagraph_keys "
        "does not use 'add_cudagraph_key'",
    ),
    Case(
        "v1-target",
        "forget",
        "vllm.forward_context",
        "BatchDescriptor",
        "uniform",
        "vllm.forward_context.BatchDescriptor has no field 'uniform'",
    ),
    Case(
        "uniform-graphs",
        "empty",
        _DISPATCHER,
        "CudagraphDispatcher._create_padded_batch_descriptor",
        "",
        "vllm.v1.cudagraph_dispatcher.CudagraphDispatcher._create_padded_batch_descriptor "
        "does not use 'uniform_decode_query_len'",
    ),
    Case(
        "v1-drafter",
        "empty",
        _PROPOSER,
        "SpecDecodeBaseProposer.__init__",
        "",
        "vllm.v1.spec_decode.llm_base_proposer.SpecDecodeBaseProposer "
        "does not set 'cudagraph_dispatcher'",
    ),
    Case(
        "v1-padding",
        "delete",
        "vllm.v1.worker.block_table",
        "MultiGroupBlockTable",
        "",
        "vllm.v1.worker.block_table has no 'MultiGroupBlockTable'",
    ),
    Case(
        "v2-target",
        "delete",
        _RUNNER_V2,
        "dispatch_cg_and_sync_dp",
        "",
        "vllm.v1.worker.gpu.model_runner has no 'dispatch_cg_and_sync_dp'",
    ),
    Case(
        "v2-target",
        "delete",
        _MANAGERS,
        "CudaGraphManager.run_fullgraph",
        "",
        "vllm.v1.worker.gpu.cudagraph_utils.CudaGraphManager has no 'run_fullgraph'",
    ),
    Case(
        "v2-drafter",
        "empty",
        "vllm.v1.worker.gpu.spec_decode.target_dependent_ar.speculator",
        "TargetDependentARSpeculator.capture",
        "",
        "vllm.v1.worker.gpu.spec_decode.target_dependent_ar.speculator."
        "TargetDependentARSpeculator.capture does not use 'prefill_cudagraph_manager'",
        ("0.33.0", INSTALLED),
    ),
    Case(
        "v2-drafter",
        "delete",
        "vllm.v1.worker.gpu.spec_decode.autoregressive.speculator",
        "AutoRegressiveSpeculator.propose",
        "",
        "vllm.v1.worker.gpu.spec_decode.autoregressive.speculator."
        "AutoRegressiveSpeculator.propose does not use 'dispatch_cg_and_sync_dp'",
        ("0.26.0",),
    ),
    Case(
        "v2-drafter",
        "delete",
        "vllm.v1.worker.gpu.spec_decode.eagle.cudagraph",
        "EagleCudaGraphManager.capture",
        "",
        "vllm.v1.worker.gpu.spec_decode.eagle.cudagraph.EagleCudaGraphManager.capture "
        "has no parameter 'forward_fn'",
        ("0.20.1",),
    ),
    Case(
        "v2-padding",
        "forget",
        "vllm.v1.worker.gpu.input_batch",
        "InputBatch",
        "seq_lens",
        "vllm.v1.worker.gpu.input_batch.InputBatch has no field 'seq_lens'",
    ),
    Case(
        "breakable",
        "delete",
        NOT_THERE,
        "BreakableCUDAGraphWrapper._replay",
        "",
        "vllm.compilation.breakable_cudagraph.BreakableCUDAGraphWrapper has no '_replay'",
        ("0.26.0", "0.33.0", INSTALLED),
    ),
    Case(
        "piecewise",
        "delete",
        "vllm.compilation.cuda_graph",
        "CUDAGraphWrapper.clear_graphs",
        "",
        "vllm.compilation.cuda_graph.CUDAGraphWrapper has no 'clear_graphs'",
    ),
    Case(
        "collectives",
        "rename",
        _STATE,
        "GroupCoordinator._all_reduce_out_place",
        "input_",
        "vllm.distributed.parallel_state.GroupCoordinator._all_reduce_out_place "
        "has no parameter 'input_'",
    ),
    Case(
        "collectives",
        "delete",
        "vllm.distributed.device_communicators.custom_all_reduce",
        "CustomAllreduce.custom_all_reduce",
        "",
        "vllm.distributed.device_communicators.custom_all_reduce.CustomAllreduce "
        "has no 'custom_all_reduce'",
    ),
    Case(
        "scheduler",
        "delete",
        "vllm.v1.core.sched.scheduler",
        "Scheduler._mamba_block_aligned_split",
        "",
        "vllm.v1.core.sched.scheduler.Scheduler has no '_mamba_block_aligned_split'",
    ),
    Case(
        "capture",
        "delete",
        "vllm.v1.worker.gpu_worker",
        "Worker",
        "",
        "vllm.v1.worker.gpu_worker has no 'Worker'",
    ),
    Case(
        "data-parallel",
        "forget",
        "vllm.config",
        "ParallelConfig",
        "data_parallel_size",
        "vllm.config.ParallelConfig has no field 'data_parallel_size'",
    ),
    Case(
        "stalls",
        "delete",
        "vllm.v1.worker.gpu_worker",
        "Worker.sample_tokens",
        "",
        # What it inherits instead does nothing.
        "vllm.v1.worker.gpu_worker.Worker.sample_tokens does not use 'model_runner'",
    ),
    Case(
        "stalls",
        "empty",
        "vllm.v1.worker.gpu_worker",
        "Worker.determine_available_memory",
        "",
        "vllm.v1.worker.gpu_worker.Worker.determine_available_memory does not use 'profile_run'",
    ),
    Case(
        "v1-stalls",
        "delete",
        _RUNNER_V1,
        "AsyncGPUModelRunnerOutput",
        "",
        "vllm.v1.worker.gpu_model_runner has no 'AsyncGPUModelRunnerOutput'",
    ),
    Case(
        "v2-stalls",
        "delete",
        "vllm.v1.worker.gpu.async_utils",
        "AsyncOutput",
        "",
        "vllm.v1.worker.gpu.async_utils has no 'AsyncOutput'",
    ),
    Case(
        "metrics",
        "delete",
        "vllm.v1.metrics.prometheus",
        "get_prometheus_registry",
        "",
        "vllm.v1.metrics.prometheus has no 'get_prometheus_registry'",
    ),
    Case(
        "metrics",
        "delete",
        "vllm.v1.metrics.prometheus",
        "",
        "",
        "vllm.v1.metrics.prometheus cannot be imported: ModuleNotFoundError: "
        "import of vllm.v1.metrics.prometheus halted; None in sys.modules",
    ),
)
