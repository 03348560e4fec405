"""A small tensor-parallel model with a drafter, whose collectives are real.

Every partial sum is reduced through one workspace of a fixed size, as custom all-reduce kernels
do it. That is also what makes the demo hang: gloo aborts when two ranks bring different sizes to
one collective, where NCCL would spin on both. Here sizes never differ, only how many collectives
a step makes: a step with drafted tokens makes one more, to agree on which of them are accepted.
"""

from __future__ import annotations

from math import sqrt

import torch
import torch.distributed as dist

from graphguard.batch import BatchDescriptor

MAX_TOKENS = 32
HIDDEN = 64
VOCABULARY = 128


class TensorParallelModel:
    """A stack of two-matrix layers, split over the ranks of the default process group.

    Args:
        num_layers: Number of layers.
        seed: Of the weights; equal on every rank, each of which keeps its own part of them.
        verifies: Whether steps of more than one query token a request verify drafted tokens.
    """

    def __init__(self, num_layers: int, *, seed: int, verifies: bool) -> None:
        rank, ranks = dist.get_rank(), dist.get_world_size()
        generator = torch.Generator().manual_seed(seed)

        def weights(*shape: int) -> torch.Tensor:
            return torch.randn(*shape, generator=generator, dtype=torch.float64) / sqrt(shape[0])

        self.tokens = torch.zeros(MAX_TOKENS, dtype=torch.int64)
        self._verifies = verifies
        self._embedding = weights(VOCABULARY, HIDDEN)
        self._layers = [
            (
                weights(HIDDEN, 2 * HIDDEN).chunk(ranks, dim=1)[rank].contiguous(),
                weights(2 * HIDDEN, HIDDEN).chunk(ranks, dim=0)[rank].contiguous(),
            )
            for _ in range(num_layers)
        ]
        self._workspace = torch.zeros(MAX_TOKENS, HIDDEN, dtype=torch.float64)

    def forward(self, batch: BatchDescriptor) -> torch.Tensor:
        """Return logits of shape [num_tokens, vocabulary] for the first tokens of ``tokens``."""
        hidden = self._embedding[self.tokens[: batch.num_tokens]]
        for into, out_of in self._layers:
            hidden = hidden + self._reduced(torch.relu(hidden @ into) @ out_of)
        if self._verifies and batch.query_len > 1:
            # Every rank holds the same sum; they agree on what to accept by its mean.
            hidden = self._reduced(hidden) / dist.get_world_size()
        logits: torch.Tensor = hidden @ self._embedding.T
        return logits

    def _reduced(self, partial: torch.Tensor) -> torch.Tensor:
        rows = partial.shape[0]
        self._workspace.zero_()
        self._workspace[:rows].copy_(partial)
        dist.all_reduce(self._workspace)
        return self._workspace[:rows].clone()
