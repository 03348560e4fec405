"""Samples of padded slots on a real GPU."""

from __future__ import annotations

import pytest
import torch

from graphguard.vllm.padding import Invariant, MetadataView, Tail
from graphguard.vllm.padding_samples import PaddingSamples

SLEEP_CYCLES = 200_000_000
"""Of the GPU's clock: about a tenth of a second."""


def view(lengths: torch.Tensor, blocks: torch.Tensor) -> MetadataView:
    return MetadataView(
        15,
        16,
        30,
        32,
        2,
        str(lengths.device),
        lengths=(Tail("seq_lens", lengths[15:16], 15),),
        block_tables=(Tail("block_table[0]", blocks[15:16, :8], 15),),
    )


@pytest.fixture
def lengths() -> torch.Tensor:
    return torch.zeros(16, dtype=torch.int32, device="cuda")


@pytest.fixture
def blocks() -> torch.Tensor:
    return torch.zeros(16, 64, dtype=torch.int32, device="cuda")


def test_a_sample_does_not_wait_and_arrives_later(
    lengths: torch.Tensor, blocks: torch.Tensor
) -> None:
    samples = PaddingSamples()
    warm = samples.take(view(lengths, blocks))
    torch.cuda.synchronize()
    assert (warm, samples.findings()) == (True, [])

    torch.cuda._sleep(SLEEP_CYCLES)
    lengths[15:16].fill_(1)
    blocks[15:16].fill_(9)
    assert samples.take(view(lengths, blocks))
    # What comes behind the copies is not in the sample.
    lengths[15:16].fill_(0)
    blocks[15:16].fill_(0)
    assert samples.findings() == []

    torch.cuda.synchronize()
    found = {(finding.invariant, finding.value) for finding in samples.findings()}
    assert found == {(Invariant.SEQ_LEN, 1), (Invariant.BLOCK_TABLE, 9)}


def test_no_sample_is_taken_into_a_graph(lengths: torch.Tensor, blocks: torch.Tensor) -> None:
    samples = PaddingSamples()
    with torch.cuda.graph(torch.cuda.CUDAGraph()):
        lengths.add_(1)
        assert not samples.take(view(lengths, blocks))
    assert samples.left_out == 1
