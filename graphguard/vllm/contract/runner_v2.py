"""The V2 runner and its graph managers, which differ from version to version."""

from __future__ import annotations

from graphguard.vllm.contract.expectation import Expectation, Part, Variant
from graphguard.vllm.contract.runner_v1 import CLEAR_GRAPHS, MODES

_V2 = "vllm.v1.worker.gpu."
_RUNNER = _V2 + "model_runner"
_MANAGERS = _V2 + "cudagraph_utils"
_DP = _V2 + "dp_utils"

_DISPATCHED = (
    "cudagraph_manager",
    "num_reqs",
    "num_tokens",
    "uniform_token_count",
    "dp_size",
    "dp_rank",
)

_MANAGER = (
    *MODES,
    CLEAR_GRAPHS,
    Expectation(
        module=_MANAGERS,
        path="CudaGraphManager",
        begins_with=("vllm_config", "device", "cudagraph_mode", "decode_query_len"),
        sets=(
            "graphs",
            "cudagraph_mode",
            "decode_query_len",
            "pool",
            "_candidates",
            "_capture_descs",
            "_graphs_captured",
        ),
    ),
    Expectation(
        module=_MANAGERS,
        path="CudaGraphManager.capture",
        begins_with=("create_forward_fn",),
        uses=("graph_capture", "graphs", "_graphs_captured"),
    ),
    Expectation(
        module=_MANAGERS,
        path="CudaGraphManager.run_fullgraph",
        begins_with=("desc",),
        uses=("graphs", "replay"),
    ),
    Expectation(
        module=_MANAGERS,
        path="ModelCudaGraphManager.capture",
        parameters=("model", "input_buffers"),
    ),
    Expectation(
        module=_MANAGERS,
        path="ModelCudaGraphManager",
        sets=("hidden_states", "aux_hidden_states", "intermediate_tensors"),
    ),
    Expectation(
        module=_MANAGERS,
        path="ModelCudaGraphManager.run_fullgraph",
        begins_with=("desc",),
        uses=("super",),
    ),
)

_RUNNER_STEPS = (
    # Of the graph manager it may only want an answer: something else answers for it in a step.
    Expectation(module=_RUNNER, path="dispatch_cg_and_sync_dp", uses=("dispatch",)),
    Expectation(module=_RUNNER, path="set_forward_context"),
    Expectation(
        module=_RUNNER,
        path="GPUModelRunner",
        sets=(
            "cudagraph_manager",
            "speculator",
            "req_states",
            "execute_model_state",
            "decode_query_len",
            "dp_size",
            "dp_rank",
            "model",
            "vllm_config",
        ),
    ),
    Expectation(
        module=_RUNNER,
        path="GPUModelRunner.execute_model",
        begins_with=("scheduler_output", "intermediate_tensors", "dummy_run"),
        uses=(
            "update_requests",
            "dispatch_cg_and_sync_dp",
            "cudagraph_manager",
            "run_fullgraph",
            "set_forward_context",
        ),
    ),
    Expectation(
        module=_RUNNER,
        path="GPUModelRunner.sample_tokens",
        begins_with=("grammar_output",),
        uses=("speculator", "propose"),
    ),
    Expectation(
        module=_RUNNER,
        path="GPUModelRunner.capture_model",
        uses=("cudagraph_manager", "speculator", "capture"),
    ),
    Expectation(module=_RUNNER, path="GPUModelRunner.initialize_kv_cache"),
    # Around every run of the model that is no full graph.
    Expectation(module=_RUNNER, path="set_forward_context"),
    # What tells a prefill from a decode before the step is dispatched, without asking the GPU.
    Expectation(
        module=_V2 + "states",
        path="RequestState",
        sets=("req_id_to_index", "num_computed_prefill_tokens", "prefill_len"),
    ),
)

_DESCRIPTOR = ("cg_mode", "num_tokens", "num_reqs", "uniform_token_count")
LORA_DESCRIPTOR = (*_DESCRIPTOR, "num_active_loras")

V2_TARGET = (
    Variant(
        part=Part.V2_TARGET,
        name="by-phase",
        versions=("0.32.0", "0.33.0"),
        expectations=(
            *_MANAGER,
            *_RUNNER_STEPS,
            Expectation(
                module=_MANAGERS,
                path="BatchExecutionDescriptor",
                fields=(*LORA_DESCRIPTOR, "max_query_len", "num_ubatches"),
            ),
            Expectation(
                module=_MANAGERS,
                path="CudaGraphManager.dispatch",
                begins_with=("num_reqs", "num_tokens", "uniform_token_count", "num_active_loras"),
                parameters=("max_query_len", "num_ubatches"),
                uses=("_candidates", "_graphs_captured"),
            ),
            Expectation(module=_MANAGERS, path="CudaGraphManager.release_graphs"),
            Expectation(
                module=_RUNNER,
                path="dispatch_cg_and_sync_dp",
                begins_with=_DISPATCHED,
                parameters=("max_query_len", "need_eager", "num_active_loras", "dp_sync_state"),
            ),
            Expectation(
                module=_DP, path="DPSyncState", fields=("num_tokens_across_dp", "eager", "num_reqs")
            ),
            Expectation(
                module=_RUNNER,
                path="GPUModelRunner.gather_batch_req_state",
                begins_with=("scheduler_output", "dummy_run"),
                uses=("get_uniform_decode_token_count",),
            ),
            Expectation(
                module=_RUNNER,
                path="BatchReqState",
                fields=("req_ids", "num_tokens", "is_prefilling_np", "decode_graph_eligible"),
            ),
            Expectation(
                module=_RUNNER,
                path="get_uniform_decode_token_count",
                begins_with=("num_reqs", "num_tokens", "max_query_len"),
                parameters=("decode_graph_eligible",),
            ),
        ),
    ),
    Variant(
        part=Part.V2_TARGET,
        name="by-shape-and-loras",
        versions=("0.26.0",),
        expectations=(
            *_MANAGER,
            *_RUNNER_STEPS,
            Expectation(module=_MANAGERS, path="BatchExecutionDescriptor", fields=LORA_DESCRIPTOR),
            Expectation(
                module=_MANAGERS,
                path="CudaGraphManager.dispatch",
                begins_with=("num_reqs", "num_tokens", "uniform_token_count", "num_active_loras"),
                uses=("_candidates", "_graphs_captured"),
            ),
            Expectation(
                module=_RUNNER,
                path="dispatch_cg_and_sync_dp",
                begins_with=_DISPATCHED,
                parameters=("need_eager", "num_active_loras"),
            ),
            Expectation(
                module=_RUNNER,
                path="get_uniform_token_count",
                begins_with=("num_reqs", "num_tokens", "max_query_len"),
            ),
        ),
    ),
    Variant(
        part=Part.V2_TARGET,
        name="by-shape",
        versions=("0.20.1",),
        expectations=(
            *_MANAGER,
            *_RUNNER_STEPS,
            Expectation(module=_MANAGERS, path="BatchExecutionDescriptor", fields=_DESCRIPTOR),
            Expectation(
                module=_MANAGERS,
                path="CudaGraphManager.dispatch",
                begins_with=("num_reqs", "num_tokens", "uniform_token_count"),
                uses=("_candidates", "_graphs_captured"),
            ),
            Expectation(
                module=_RUNNER,
                path="dispatch_cg_and_sync_dp",
                begins_with=_DISPATCHED,
                parameters=("need_eager",),
            ),
            Expectation(
                module=_RUNNER,
                path="get_uniform_token_count",
                begins_with=("num_reqs", "num_tokens", "max_query_len"),
            ),
        ),
    ),
)

V2_PADDING = (
    Variant(
        part=Part.V2_PADDING,
        name="input-batch",
        versions=("0.20.1", "0.26.0", "0.32.0", "0.33.0"),
        expectations=(
            Expectation(
                module=_V2 + "input_batch",
                path="InputBatch",
                fields=(
                    "num_reqs",
                    "num_reqs_after_padding",
                    "num_tokens",
                    "num_tokens_after_padding",
                    "idx_mapping_np",
                    "query_start_loc",
                    "query_start_loc_np",
                    "seq_lens",
                    "seq_lens_cpu_upper_bound",
                    "positions",
                ),
            ),
            Expectation(
                module=_V2 + "input_batch",
                path="InputBuffers",
                sets=("seq_lens", "query_start_loc", "positions"),
            ),
            Expectation(
                module=_V2 + "block_table",
                path="BlockTables",
                sets=("input_block_tables", "slot_mappings"),
            ),
            Expectation(
                module=_RUNNER,
                path="GPUModelRunner.prepare_inputs",
                begins_with=("scheduler_output",),
            ),
            Expectation(
                module=_RUNNER,
                path="GPUModelRunner",
                sets=("input_buffers", "block_tables", "model_state"),
            ),
            Expectation(
                module=_RUNNER,
                path="GPUModelRunner.execute_model",
                uses=("prepare_inputs", "model_state", "prepare_attn"),
            ),
        ),
    ),
)
