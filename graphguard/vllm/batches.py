"""The descriptors of a model's batches, made once: making one takes longer than a check."""

from __future__ import annotations

from graphguard.batch import BatchDescriptor
from graphguard.verdict import Phase

MAX_BATCHES = 65_536
"""Descriptors that are kept."""


class Batches:
    """The batches that a model has run."""

    def __init__(self) -> None:
        self._known: dict[tuple[int, int, int, int], BatchDescriptor] = {}

    def of(self, num_reqs: int, query_len: int, num_tokens: int, phase: int) -> BatchDescriptor:
        """Return the descriptor of a batch."""
        sizes = (num_reqs, query_len, num_tokens, phase)
        batch = self._known.get(sizes)
        if batch is None:
            if len(self._known) >= MAX_BATCHES:
                self._known.clear()
            uniform = num_reqs * query_len == num_tokens
            batch = BatchDescriptor(num_reqs, query_len, num_tokens, uniform, Phase(phase))
            self._known[sizes] = batch
        return batch
