"""The V1 runner and its proposer, and the graphs of ``CUDAGraphWrapper``."""

from __future__ import annotations

from msgspec import structs

from graphguard.vllm.contract.expectation import Expectation, Part, Variant

ALL = ("0.20.1", "0.26.0", "0.32.0", "0.33.0")

RUNNER = "vllm.v1.worker.gpu_model_runner"
_INPUT_BATCH = "vllm.v1.worker.gpu_input_batch"
_PROPOSER = "vllm.v1.spec_decode.llm_base_proposer"
DISPATCHER = "vllm.v1.cudagraph_dispatcher"
_WRAPPER = "vllm.compilation.cuda_graph"
_CONTEXT = "vllm.forward_context"
_PROPOSER_CLASS = "SpecDecodeBaseProposer"

MODES = tuple(
    Expectation(module="vllm.config", path=f"CUDAGraphMode.{mode}")
    for mode in ("NONE", "PIECEWISE", "FULL")
)

DESCRIPTOR = Expectation(
    module=_CONTEXT,
    path="BatchDescriptor",
    fields=("num_tokens", "num_reqs", "uniform", "has_lora", "num_active_loras"),
)

FORWARD_CONTEXT = (
    DESCRIPTOR,
    Expectation(
        module=_CONTEXT,
        path="ForwardContext",
        fields=("attn_metadata", "cudagraph_runtime_mode", "batch_descriptor", "slot_mapping"),
    ),
    Expectation(module=_CONTEXT, path="get_forward_context"),
    Expectation(module=_CONTEXT, path="is_forward_context_available"),
)

CLEAR_GRAPHS = Expectation(module=_WRAPPER, path="CUDAGraphWrapper.clear_graphs")

_GRAPHS = (
    Expectation(
        module=_WRAPPER,
        path="CUDAGraphWrapper",
        parameters=("runnable", "vllm_config", "runtime_mode", "cudagraph_options"),
        sets=("concrete_cudagraph_entries", "runtime_mode", "runnable", "graph_pool"),
    ),
    Expectation(
        module=_WRAPPER,
        path="CUDAGraphWrapper.__call__",
        uses=("get_forward_context", "concrete_cudagraph_entries", "runtime_mode", "replay"),
    ),
    CLEAR_GRAPHS,
    Expectation(module=_WRAPPER, path="CUDAGraphWrapper.clear_all_graphs", uses=("clear_graphs",)),
    Expectation(
        module=_WRAPPER,
        path="CUDAGraphEntry",
        fields=("batch_descriptor", "cudagraph", "output", "input_addresses"),
    ),
)

_DISPATCHERS = (
    Expectation(
        module=DISPATCHER,
        path="CudagraphDispatcher",
        begins_with=("vllm_config",),
        sets=("cudagraph_keys", "cudagraph_mode", "uniform_decode_query_len", "keys_initialized"),
    ),
    Expectation(
        module=DISPATCHER,
        path="CudagraphDispatcher.dispatch",
        begins_with=("num_tokens",),
        parameters=(
            "uniform_decode",
            "has_lora",
            "num_active_loras",
            "valid_modes",
            "invalid_modes",
        ),
        uses=("cudagraph_keys",),
    ),
    Expectation(
        module=DISPATCHER,
        path="CudagraphDispatcher.initialize_cudagraph_keys",
        begins_with=("cudagraph_mode", "uniform_decode_query_len"),
        uses=("add_cudagraph_key",),
    ),
    Expectation(module=DISPATCHER, path="CudagraphDispatcher.get_capture_descs"),
)

_STEPS = (
    Expectation(
        module=RUNNER,
        path="GPUModelRunner",
        sets=(
            "input_batch",
            "uniform_decode_query_len",
            "drafter",
            "cudagraph_dispatcher",
            "model",
            "vllm_config",
            "speculative_config",
            "parallel_config",
        ),
    ),
    Expectation(
        module=RUNNER,
        path="GPUModelRunner.execute_model",
        begins_with=("scheduler_output",),
        uses=("_determine_batch_execution_and_padding", "_model_forward"),
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
        parameters=("force_eager", "force_uniform_decode"),
        uses=("cudagraph_dispatcher", "dispatch", "coordinate_batch_across_dp"),
    ),
    Expectation(
        module=RUNNER,
        path="GPUModelRunner._model_forward",
        begins_with=("input_ids", "positions"),
    ),
    Expectation(
        module=RUNNER, path="GPUModelRunner.sample_tokens", begins_with=("grammar_output",)
    ),
    Expectation(
        module=_INPUT_BATCH,
        path="InputBatch",
        sets=("num_computed_tokens_cpu", "num_prompt_tokens", "num_reqs", "req_ids"),
    ),
)

_CAPTURING = (
    Expectation(module=RUNNER, path="GPUModelRunner.capture_model", uses=("_capture_cudagraphs",)),
    Expectation(
        module=RUNNER,
        path="GPUModelRunner._capture_cudagraphs",
        begins_with=("batch_descriptors", "cudagraph_runtime_mode"),
        uses=("_warmup_and_capture",),
    ),
    Expectation(
        module=RUNNER,
        path="GPUModelRunner._warmup_and_capture",
        begins_with=("desc", "cudagraph_runtime_mode"),
        uses=("_dummy_run",),
    ),
    Expectation(
        module=RUNNER,
        path="GPUModelRunner._dummy_run",
        begins_with=("num_tokens", "cudagraph_runtime_mode"),
        parameters=("uniform_decode", "is_graph_capturing", "is_profile"),
    ),
    Expectation(
        module=RUNNER,
        path="GPUModelRunner.profile_cudagraph_memory",
        # The graphs that it captures are thrown away, which is how the guard learns of it.
        uses=("clear_all_graphs",),
    ),
    Expectation(module=RUNNER, path="GPUModelRunner.load_model", uses=("CUDAGraphWrapper",)),
)

V1_TARGET = (
    Variant(
        part=Part.V1_TARGET,
        name="dispatcher",
        versions=ALL,
        expectations=(
            *MODES,
            *_DISPATCHERS,
            *_STEPS,
            *_CAPTURING,
            *_GRAPHS,
            *FORWARD_CONTEXT,
        ),
    ),
)

_PROPOSE = Expectation(
    module=_PROPOSER,
    path=f"{_PROPOSER_CLASS}.propose",
    parameters=("target_token_ids", "next_token_ids", "common_attn_metadata", "slot_mappings"),
    uses=("_determine_batch_execution_and_padding",),
)
_PROPOSER_METHODS = (
    Expectation(
        module=_PROPOSER,
        path=_PROPOSER_CLASS,
        sets=("cudagraph_dispatcher", "speculative_config", "num_speculative_tokens", "model"),
    ),
    Expectation(
        module=_PROPOSER,
        path=f"{_PROPOSER_CLASS}.dummy_run",
        begins_with=("num_tokens", "use_cudagraphs", "is_graph_capturing"),
        uses=("_determine_batch_execution_and_padding",),
    ),
    Expectation(
        module=_PROPOSER,
        path=f"{_PROPOSER_CLASS}._determine_batch_execution_and_padding",
        begins_with=("num_tokens", "use_cudagraphs"),
        uses=("cudagraph_dispatcher", "dispatch", "coordinate_batch_across_dp"),
    ),
    Expectation(
        module=_PROPOSER,
        path=f"{_PROPOSER_CLASS}.initialize_cudagraph_keys",
        begins_with=("cudagraph_mode",),
    ),
    DESCRIPTOR,
)

# Asked for while the runner's module is still being imported: nothing of it may be expected here.
V1_DRAFTER = (
    Variant(
        part=Part.V1_DRAFTER,
        name="drafts-by-step",
        versions=("0.26.0", "0.32.0", "0.33.0"),
        expectations=(
            structs.replace(_PROPOSE, begins_with=("num_speculative_tokens",)),
            *_PROPOSER_METHODS,
        ),
    ),
    Variant(
        part=Part.V1_DRAFTER,
        name="drafts-by-config",
        versions=("0.20.1",),
        expectations=(
            structs.replace(_PROPOSE, begins_with=("target_token_ids",)),
            *_PROPOSER_METHODS,
        ),
    ),
)

V1_PADDING = (
    Variant(
        part=Part.V1_PADDING,
        name="buffers",
        versions=ALL,
        expectations=(
            Expectation(
                module=RUNNER,
                path="GPUModelRunner",
                sets=(
                    "seq_lens",
                    "optimistic_seq_lens_cpu",
                    "query_start_loc",
                    "positions",
                    "max_model_len",
                    "kv_cache_config",
                ),
            ),
            Expectation(
                module=RUNNER,
                path="GPUModelRunner._build_attention_metadata",
                parameters=(
                    "num_tokens",
                    "num_reqs",
                    "max_query_len",
                    "num_tokens_padded",
                    "num_reqs_padded",
                    "for_cudagraph_capture",
                    "slot_mappings",
                ),
            ),
            Expectation(module=_INPUT_BATCH, path="InputBatch", sets=("block_table",)),
            Expectation(
                module="vllm.v1.worker.block_table",
                path="MultiGroupBlockTable",
                sets=("block_tables",),
            ),
            Expectation(
                module=_PROPOSER, path=_PROPOSER_CLASS, sets=("_slot_mapping_buffer", "positions")
            ),
        ),
    ),
)

PIECEWISE = (
    Variant(
        part=Part.PIECEWISE,
        name="wrapper",
        versions=ALL,
        expectations=(*MODES, *_GRAPHS, *FORWARD_CONTEXT),
    ),
)
