"""What a second family of full graphs needs of the V1 runner, besides what guarding it needs."""

from __future__ import annotations

from graphguard.vllm.contract.expectation import Expectation, Part, Variant
from graphguard.vllm.contract.runner_v1 import ALL, DISPATCHER, RUNNER

_LENGTH = "uniform_decode_query_len"

UNIFORM_GRAPHS = (
    Variant(
        part=Part.UNIFORM_GRAPHS,
        name="by-length",
        versions=ALL,
        expectations=(
            Expectation(
                module=DISPATCHER,
                path="CudagraphDispatcher",
                sets=("vllm_config", "compilation_config", _LENGTH),
            ),
            Expectation(
                module=DISPATCHER,
                path="CudagraphDispatcher._create_padded_batch_descriptor",
                begins_with=("num_tokens", "uniform_decode", "has_lora", "num_active_loras"),
                uses=(_LENGTH,),
            ),
            Expectation(module=DISPATCHER, path="CudagraphDispatcher._get_lora_cases"),
            Expectation(
                module=DISPATCHER,
                path="CudagraphDispatcher.add_cudagraph_key",
                begins_with=("runtime_mode", "batch_descriptor"),
            ),
            Expectation(
                module=DISPATCHER,
                path="CudagraphDispatcher.initialize_cudagraph_keys",
                begins_with=("cudagraph_mode",),
                uses=("add_cudagraph_key",),
            ),
            Expectation(
                module=DISPATCHER,
                path="CudagraphDispatcher.get_capture_descs",
                uses=("cudagraph_keys",),
            ),
            Expectation(
                module=RUNNER,
                path="GPUModelRunner._determine_batch_execution_and_padding",
                begins_with=(
                    "num_tokens",
                    "num_reqs",
                    "num_scheduled_tokens_np",
                    "max_num_scheduled_tokens",
                ),
                uses=(_LENGTH,),
            ),
            Expectation(module=RUNNER, path="GPUModelRunner._dummy_run", uses=(_LENGTH,)),
            Expectation(
                module=RUNNER,
                path="GPUModelRunner._warmup_and_capture",
                begins_with=("desc",),
                uses=("_dummy_run",),
            ),
        ),
    ),
)
