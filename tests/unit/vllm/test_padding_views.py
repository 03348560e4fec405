"""Which padded slots are looked at, and what is never read."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch

from graphguard.vllm.padding import Invariant, MetadataView, violations
from graphguard.vllm.padding_samples import PaddingSamples
from graphguard.vllm.padding_views import (
    Extent,
    V1Metadata,
    derived_lengths,
    view_of_v1,
    view_of_v1_drafter,
)
from graphguard.vllm.padding_views_v2 import (
    extent_of_v2,
    tensors_of_v2,
    tensors_of_v2_drafter,
    view_of_v2,
)
from tests.unit.vllm.padded_steps import BLOCKS, MAX_REQS, MODEL_LEN, SEEDS_STEP, v1_runner


def told(view: MetadataView) -> set[tuple[Invariant, str, int, int, int]]:
    return {(f.invariant, f.tensor, f.slot, f.value, f.repeats) for f in violations(view)}


def test_nothing_is_read_from_the_device_of_a_v1_runner() -> None:
    runner = v1_runner("meta")
    metadata = V1Metadata(runner)
    view = metadata.view(SEEDS_STEP)
    assert not metadata.all_seen
    assert violations(view) == []
    assert [tail.name for tail in view.lengths] == ["optimistic_seq_lens_cpu"]
    assert (view.block_tables, view.slot_mappings, view.positions) == ((), (), None)

    runner.optimistic_seq_lens_cpu[15] = 9
    runner.query_start_loc.np[16] = 32
    assert told(metadata.view(SEEDS_STEP)) == {
        (Invariant.SEQ_LEN, "optimistic_seq_lens_cpu", 15, 9, 1),
        (Invariant.QUERY_START, "query_start_loc", 16, 32, 1),
    }


def test_the_tensors_for_a_sample_are_the_padded_slots_only() -> None:
    view = V1Metadata(v1_runner("meta")).tensors(SEEDS_STEP)
    assert view.device == "meta"
    assert view.query_start is not None
    assert view.positions is not None
    assert [tuple(tail.values.shape) for tail in view.lengths] == [(1,)]
    assert tuple(view.query_start.values.shape) == (2,)
    assert [tuple(tail.values.shape) for tail in view.block_tables] == [(1, BLOCKS)] * 2
    assert [tuple(tail.values.shape) for tail in view.slot_mappings] == [(2,)] * 2
    assert tuple(view.positions.values.shape) == (2,)


def test_everything_is_seen_on_a_cpu_runner_and_a_new_input_batch_is_noticed() -> None:
    runner = v1_runner("cpu")
    metadata = V1Metadata(runner)
    assert metadata.all_seen
    assert violations(metadata.view(SEEDS_STEP)) == []

    other = v1_runner("cpu")
    runner.input_batch = other.input_batch
    other.input_batch.block_table.block_tables[0].slot_mapping.gpu[31] = 5
    assert (Invariant.SLOT_MAPPING, "slot_mapping[1]", 31, 5, 1) in told(metadata.view(SEEDS_STEP))
    assert told(view_of_v1(runner, SEEDS_STEP)) == told(metadata.view(SEEDS_STEP))


def test_tables_of_layers_that_only_encode_are_left_out() -> None:
    class EncoderOnlyAttentionSpec:
        pass

    runner = v1_runner("cpu")
    runner.kv_cache_config = SimpleNamespace(
        kv_cache_groups=[
            SimpleNamespace(kv_cache_spec=object()),
            SimpleNamespace(kv_cache_spec=EncoderOnlyAttentionSpec()),
        ]
    )
    view = view_of_v1(runner, SEEDS_STEP)
    assert [tail.name for tail in view.block_tables] == ["block_table[0]"]


def test_the_padded_tokens_of_a_v1_drafter_are_seen() -> None:
    proposer = SimpleNamespace(
        _slot_mapping_buffer=torch.full((64,), -1, dtype=torch.int64),
        positions=torch.zeros(64, dtype=torch.int64),
        max_model_len=MODEL_LEN,
    )
    piecewise = Extent(15, 15, 30, 32)
    assert violations(view_of_v1_drafter(proposer, piecewise)) == []
    proposer._slot_mapping_buffer[30] = 4
    proposer.positions[31] = MODEL_LEN
    assert told(view_of_v1_drafter(proposer, piecewise)) == {
        (Invariant.SLOT_MAPPING, "_slot_mapping_buffer", 30, 4, 1),
        (Invariant.POSITION, "positions", 31, MODEL_LEN, 1),
    }


def v2_batch(**fields: Any) -> Any:
    batch = SimpleNamespace(
        num_reqs=15,
        num_reqs_after_padding=16,
        num_tokens=30,
        num_tokens_after_padding=32,
        query_start_loc_np=np.array([min(2 * i, 30) for i in range(17)], np.int32),
        seq_lens_cpu_upper_bound=torch.tensor([50] * 15 + [0], dtype=torch.int32),
    )
    vars(batch).update(fields)
    return batch


def test_the_cpu_side_of_a_v2_step_is_seen() -> None:
    desc = SimpleNamespace(uniform_token_count=2)
    assert extent_of_v2(v2_batch(), desc) == SEEDS_STEP
    assert violations(view_of_v2(v2_batch(), desc)) == []
    bad = v2_batch(seq_lens_cpu_upper_bound=torch.tensor([50] * 16))
    assert [f.tensor for f in violations(view_of_v2(bad, desc))] == ["seq_lens_cpu_upper_bound"]
    # One rank's part of a batch is laid out in another way.
    assert violations(view_of_v2(v2_batch(**vars(bad), pcp=object()), desc)) == []


def test_the_tensors_of_a_v2_step_are_its_input_buffers() -> None:
    inputs = SimpleNamespace(
        seq_lens=torch.zeros(MAX_REQS, dtype=torch.int32),
        query_start_loc=torch.full((MAX_REQS + 1,), 30, dtype=torch.int32),
        positions=torch.zeros(64, dtype=torch.int64),
    )
    tables = SimpleNamespace(
        input_block_tables=[torch.zeros(MAX_REQS, 40, dtype=torch.int32)],
        slot_mappings=torch.full((1, 64), -1, dtype=torch.int64),
    )
    owner = SimpleNamespace(input_buffers=inputs, block_tables=tables, max_model_len=MODEL_LEN)
    tables.slot_mappings[0, 31] = 6
    samples = PaddingSamples()
    assert samples.take(tensors_of_v2(owner, SEEDS_STEP))
    (finding,) = samples.findings()
    assert (finding.tensor, finding.slot, finding.value) == ("slot_mappings[0]", 31, 6)
    # A drafter's graph computes its slots itself, and has not done so yet.
    assert samples.take(tensors_of_v2_drafter(owner, SEEDS_STEP))
    assert samples.findings() == []
    inputs.seq_lens[15] = 1
    assert samples.take(tensors_of_v2_drafter(owner, SEEDS_STEP))
    (finding,) = samples.findings()
    assert (finding.tensor, finding.slot, finding.value) == ("seq_lens", 15, 1)


class Metadata:
    """The metadata of one layer whose backend has computed lengths for decodes."""

    def __init__(self, lengths: torch.Tensor) -> None:
        self.decode = SimpleNamespace(seq_lens=lengths)


@pytest.mark.parametrize(
    ("shape", "slot"),
    [pytest.param((16, 2), 15, id="by request"), pytest.param((32, 1), 31, id="by token")],
)
def test_the_length_of_minus_one_that_stops_persistent_topk_is_told(
    shape: tuple[int, int], slot: int
) -> None:
    """What the sparse indexer of 0.20.1 and 0.26.0 makes of a padded length of 0: 0 - 2 + 1."""
    lengths = torch.full(shape, 50, dtype=torch.int32)
    lengths[slot, 0] = -1
    layers = {"layers.0.attn": Metadata(lengths), "layers.0.indexer": object()}
    layers["layers.1.attn"] = layers["layers.0.attn"]
    view = V1Metadata(v1_runner("cpu")).view(SEEDS_STEP, layers)
    (finding,) = violations(view)
    assert finding.invariant is Invariant.DERIVED_LENGTH
    assert (finding.tensor, finding.slot) == ("Metadata.decode.seq_lens", slot)
    assert derived_lengths(None, SEEDS_STEP) == ()
    assert derived_lengths({"layer": Metadata(lengths[:3])}, SEEDS_STEP) == ()
