"""A small step with static tensors, for the tests of the guard."""

from typing import Any

import torch

from graphguard import BatchDescriptor, Captured, GuardedCapture, Session, guard
from graphguard.graphs.emulated import EmulatedGraph, capture

MAX_TOKENS = 64


class Step:
    """Doubles its tokens, counts what ran, and can be told to fail."""

    def __init__(self) -> None:
        self.tokens = torch.zeros(MAX_TOKENS)
        self.captures: list[BatchDescriptor] = []
        self.eager_runs: list[BatchDescriptor] = []
        self.fail_with: Exception | None = None

    def compute(self, batch: BatchDescriptor) -> torch.Tensor:
        return self.tokens[: batch.num_tokens] * 2

    def eager(self, batch: BatchDescriptor) -> torch.Tensor:
        self.eager_runs.append(batch)
        return self.compute(batch)

    def capture(self, batch: BatchDescriptor) -> Captured:
        self.captures.append(batch)
        if self.fail_with is not None:
            raise self.fail_with
        graph = EmulatedGraph()
        with capture(graph):
            out = self.compute(batch)
        return Captured(graph, inputs={"tokens": self.tokens}, outputs=out)

    def guarded(self, session: Session, *sizes: str, **settings: Any) -> GuardedCapture:
        settings.setdefault("mode", "enforce")
        settings.setdefault("eager", self.eager)
        guarded = guard("target", session=session, **settings)(self.capture)
        guarded.warm_up(map(BatchDescriptor.parse, sizes or ("1x2", "2x2", "4x2", "8x2", "16x2")))
        return guarded
