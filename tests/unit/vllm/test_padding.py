"""What is said of padded slots, against a model that reads like the rules."""

from __future__ import annotations

from typing import Any, NamedTuple

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from graphguard.vllm.padding import Invariant, MetadataView, Tail, violations
from graphguard.vllm.padding_views import Extent

MAX_REQS, BLOCKS, MODEL_LEN = 20, 6, 100
SEEDS_STEP = Extent(15, 16, 30, 32, 2)

Said = tuple[Invariant, str, int, int, int]


class Buffers(NamedTuple):
    """Whole buffers of a step, as vLLM keeps them: sound until a test damages them."""

    lengths: np.ndarray[Any, Any]
    starts: np.ndarray[Any, Any]
    blocks: np.ndarray[Any, Any]
    slots: np.ndarray[Any, Any]
    positions: np.ndarray[Any, Any]
    derived: np.ndarray[Any, Any]

    def view(self, extent: Extent) -> MetadataView:
        req, reqs, token, tokens, query_len = extent
        return MetadataView(
            req,
            reqs,
            token,
            tokens,
            query_len,
            max_model_len=MODEL_LEN,
            lengths=(Tail("lengths", self.lengths[req:reqs], req),),
            query_start=Tail("starts", self.starts[req : reqs + 1], req),
            block_tables=(Tail("blocks", self.blocks[req:reqs], req),),
            slot_mappings=(Tail("slots", self.slots[token:tokens], token),),
            positions=Tail("positions", self.positions[token:tokens], token),
            derived=(Tail("derived", self.derived[req:reqs], req),),
        )


def sound(extent: Extent) -> Buffers:
    req, _, token, _, query_len = extent
    query_len = query_len or max(token // max(req, 1), 1)
    buffers = Buffers(
        np.zeros(MAX_REQS, np.int32),
        np.full(MAX_REQS + 1, token, np.int32),
        np.zeros((MAX_REQS, BLOCKS), np.int32),
        np.full(MAX_REQS * 4, -1, np.int64),
        np.zeros(MAX_REQS * 4, np.int64),
        np.zeros((MAX_REQS, 2), np.int32),
    )
    buffers.lengths[:req] = 50
    buffers.starts[:req] = np.arange(req) * query_len
    buffers.blocks[:req] = 7
    buffers.slots[:token] = 7
    return buffers


def naive(extent: Extent, buffers: Buffers) -> set[Said]:
    """What must be found, one slot after the other."""
    said: set[Said] = set()
    reqs = range(extent.num_reqs, extent.num_reqs_padded)
    tokens = range(extent.num_tokens, extent.num_tokens_padded)
    if not reqs and not tokens:
        return said
    starts = range(extent.num_reqs, extent.num_reqs_padded + 1)
    context = {
        i: int(buffers.lengths[i]) - (int(buffers.starts[i + 1]) - int(buffers.starts[i]))
        for i in reqs
    }
    rows = {i: next((int(b) for b in buffers.blocks[i] if b != 0), 0) for i in reqs}
    worst = {i: next((int(v) for v in buffers.derived[i] if v < 0), 0) for i in reqs}
    bad = {
        (Invariant.SEQ_LEN, "lengths"): [(i, int(buffers.lengths[i])) for i in reqs],
        (Invariant.QUERY_START, "starts"): [
            (i, int(buffers.starts[i])) for i in starts if buffers.starts[i] != extent.num_tokens
        ],
        (Invariant.CONTEXT_LENGTH, "lengths - query lengths"): [
            (i, value) for i, value in context.items() if value < 0
        ],
        (Invariant.BLOCK_TABLE, "blocks"): list(rows.items()),
        (Invariant.SLOT_MAPPING, "slots"): [
            (i, int(buffers.slots[i])) for i in tokens if buffers.slots[i] != -1
        ],
        (Invariant.POSITION, "positions"): [
            (i, int(buffers.positions[i]))
            for i in tokens
            if buffers.positions[i] < 0 or buffers.positions[i] >= MODEL_LEN
        ],
        (Invariant.DERIVED_LENGTH, "derived"): list(worst.items()),
    }
    zero_is_sound = {Invariant.SEQ_LEN, Invariant.BLOCK_TABLE, Invariant.DERIVED_LENGTH}
    for (invariant, tensor), slots in bad.items():
        kept = [slot for slot in slots if slot[1] != 0 or invariant not in zero_is_sound]
        if kept:
            said.add((invariant, tensor, *kept[0], len(kept)))
    return said


def told(view: MetadataView) -> set[Said]:
    findings = violations(view)
    said = {(f.invariant, f.tensor, f.slot, f.value, f.repeats) for f in findings}
    assert len(said) == len(findings)
    return said


@st.composite
def steps(draw: st.DrawFn) -> tuple[Extent, Buffers]:
    query_len = draw(st.integers(1, 4))
    reqs = draw(st.integers(1, MAX_REQS))
    req = draw(st.integers(1, reqs))
    uniform = draw(st.booleans())
    extent = Extent(req, reqs, req * query_len, reqs * query_len, query_len if uniform else 0)
    buffers = sound(extent)
    for _ in range(draw(st.integers(0, 3))):
        buffer = draw(st.sampled_from(buffers))
        index = draw(st.integers(0, buffer.size - 1))
        # 255, 256 and -256 have bytes that are those of a sound value.
        buffer.flat[index] = draw(st.sampled_from([-256, -2, -1, 0, 1, 2, 99, 100, 255, 256]))
    return extent, buffers


@given(steps())
@settings(max_examples=1_000, deadline=None)
def test_every_damage_to_padded_slots_is_told_and_nothing_else(
    step: tuple[Extent, Buffers],
) -> None:
    extent, buffers = step
    assert told(buffers.view(extent)) == naive(extent, buffers)


def test_a_sound_padded_step_has_no_findings() -> None:
    assert violations(sound(SEEDS_STEP).view(SEEDS_STEP)) == []


def test_an_exact_step_is_not_looked_at() -> None:
    view = MetadataView(16, 16, 32, 32, 2, lengths=(Tail("lengths", None, 16),))
    assert violations(view) == []


@pytest.mark.parametrize(
    "extent",
    [
        pytest.param(Extent(15, 16, 15, 32, 2), id="one token a request in a graph of two"),
        pytest.param(Extent(7, 7, 14, 15, 2), id="a size that the query length does not divide"),
        pytest.param(Extent(17, 16, 34, 32, 2), id="more requests than the graph has"),
        pytest.param(Extent(5, 4, 8, 8, 0), id="more requests for as many tokens"),
        pytest.param(Extent(3, 4, 9, 8, 0), id="more tokens than the graph has"),
    ],
)
def test_padding_that_the_graph_cannot_have_is_told(extent: Extent) -> None:
    (finding,) = violations(MetadataView(*extent))
    assert finding.invariant is Invariant.DESCRIPTOR
    assert f"{extent.num_reqs} of {extent.num_reqs_padded} requests" in str(finding)


def test_rows_too_long_to_be_compared_as_bytes_are_looked_at_too() -> None:
    rows = np.zeros((1, 4096), np.int32)
    rows[0, -1] = 3
    view = MetadataView(15, 16, 30, 32, 2, block_tables=(Tail("blocks", rows, 15),))
    assert told(view) == {(Invariant.BLOCK_TABLE, "blocks", 15, 3, 1)}


def test_a_finding_says_what_and_where_and_names_the_threads() -> None:
    buffers = sound(SEEDS_STEP)
    buffers.lengths[15] = -1
    length, context = violations(buffers.view(SEEDS_STEP))
    assert str(length) == (
        "padded slot 15 of lengths holds -1 and not 0: attention reads keys for a request that "
        "does not exist, from whatever its row names; 15 of 16 requests and 30 of 32 tokens are "
        "the batch's own"
    )
    assert (context.invariant, context.value) == (Invariant.CONTEXT_LENGTH, -1)
    assert "vllm#51593" in context.issues
