"""Where the padded slots of a step lie in vLLM's V2 runner and in its speculators."""

from __future__ import annotations

from typing import Any

from graphguard.vllm.padding import MetadataView
from graphguard.vllm.padding_views import SAMPLED_BLOCKS, Buffers, Extent, cut, derived_lengths


def extent_of_v2(input_batch: Any, desc: Any) -> Extent:  # noqa: ANN401 - vLLM's own
    """Return a V2 step: its batch, and the descriptor of the graph that runs it."""
    return Extent(
        input_batch.num_reqs,
        input_batch.num_reqs_after_padding,
        input_batch.num_tokens,
        input_batch.num_tokens_after_padding,
        desc.uniform_token_count or 0,
    )


def view_of_v2(input_batch: Any, desc: Any) -> MetadataView:  # noqa: ANN401 - vLLM's own
    """Return what the CPU sees of the padded slots of a V2 step.

    Nothing is looked at where the batch is one rank's part of another one (PCP).
    """
    extent = extent_of_v2(input_batch, desc)
    if getattr(input_batch, "pcp", None) is not None or not extent.padded:
        return cut(Buffers(), extent, "cpu", 0)
    bound = input_batch.seq_lens_cpu_upper_bound
    buffers = Buffers(
        () if bound is None else (("seq_lens_cpu_upper_bound", bound.numpy()),),
        ("query_start_loc_np", input_batch.query_start_loc_np),
    )
    return cut(buffers, extent, "cpu", 0)


def tensors_of_v2(
    runner: Any,  # noqa: ANN401 - vLLM's own
    extent: Extent,
    attn_metadata: object = None,
) -> MetadataView:
    """Return the padded slots of a V2 step as tensors where the graph reads them, for a sample.

    Args:
        runner: The runner, just before its graph is replayed.
        extent: The step.
        attn_metadata: What ``prepare_attn`` returned, for the lengths that a backend derived.
    """
    inputs, tables = runner.input_buffers, runner.block_tables
    groups = range(len(tables.input_block_tables))
    buffers = Buffers(
        (("seq_lens", inputs.seq_lens),),
        ("query_start_loc", inputs.query_start_loc),
        tuple((f"input_block_tables[{i}]", tables.input_block_tables[i]) for i in groups),
        tuple((f"slot_mappings[{i}]", tables.slot_mappings[i]) for i in groups),
        ("positions", inputs.positions),
    )
    device = str(inputs.seq_lens.device)
    view = cut(buffers, extent, device, int(getattr(runner, "max_model_len", 0)), SAMPLED_BLOCKS)
    view.derived = derived_lengths(attn_metadata, extent)
    return view


def tensors_of_v2_drafter(speculator: Any, extent: Extent) -> MetadataView:  # noqa: ANN401
    """Return the padded slots of a speculator's decodes as tensors, for a sample.

    Of these only what every version writes before the graph is replayed: that computes its slot
    mappings by itself, or adds to the lengths while it runs, and before 0.33 rows of the block
    tables may be of an earlier and larger step, where no kernel reads them.

    Args:
        speculator: The speculator, just before the graph for its decodes is replayed.
        extent: The step.
    """
    inputs = speculator.input_buffers
    buffers = Buffers((("seq_lens", inputs.seq_lens),), ("query_start_loc", inputs.query_start_loc))
    return cut(buffers, extent, str(inputs.seq_lens.device), 0)
