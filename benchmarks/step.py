"""What the replay and capture benchmarks run: a small model in emulated graphs."""

from __future__ import annotations

import torch
import torch.distributed as dist

from graphguard import BatchDescriptor, Captured, GuardedCapture, Session, guard
from graphguard.graphs.emulated import EmulatedGraph, capture

SIZES = tuple(BatchDescriptor.of(num_reqs, 2) for num_reqs in (1, 2, 4, 8, 16))
MAX_TOKENS = 32


class Model:
    """A stack of layers with an all-reduce behind each, as tensor parallelism has it.

    Args:
        num_layers: 0 gives a graph of one addition, the cheapest there is to replay.
    """

    def __init__(self, num_layers: int) -> None:
        self.hidden = torch.zeros(MAX_TOKENS, 64)
        self._weights = [torch.randn(64, 64) / 8 for _ in range(num_layers)]

    def forward(self, batch: BatchDescriptor) -> torch.Tensor:
        hidden = self.hidden[: batch.num_tokens] + 1
        for weight in self._weights:
            hidden = torch.relu(hidden @ weight)
            dist.all_reduce(hidden)
        return hidden

    def capture(self, batch: BatchDescriptor) -> Captured:
        graph = EmulatedGraph()
        with capture(graph):
            out = self.forward(batch)
        return Captured(graph, inputs={"hidden": self.hidden}, outputs=out)

    def guarded(self, mode: str) -> GuardedCapture:
        decorate = guard("target", eager=self.forward, mode=mode, session=Session())
        return decorate(self.capture)
