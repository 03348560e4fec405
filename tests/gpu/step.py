"""A step on the GPU with static tensors, as tests/unit has one on the CPU."""

from __future__ import annotations

from typing import Any

import torch

from graphguard import BatchDescriptor, Captured, GuardedCapture, Session, graphs, guard

MAX_TOKENS = 64
HIDDEN = 128


class Step:
    """Two layers, captured into CUDA graphs of one pool; or into emulated ones."""

    def __init__(self, num_layers: int = 2, device: str = "cuda") -> None:
        generator = torch.Generator(device).manual_seed(0)
        self.hidden = torch.zeros(MAX_TOKENS, HIDDEN, device=device)
        self._weights = [
            torch.randn(HIDDEN, HIDDEN, device=device, generator=generator) / HIDDEN**0.5
            for _ in range(num_layers)
        ]
        self._options = {"pool": torch.cuda.graph_pool_handle()} if device == "cuda" else {}
        self.eager_runs: list[BatchDescriptor] = []
        self.captures: list[BatchDescriptor] = []

    def forward(self, batch: BatchDescriptor) -> torch.Tensor:
        out = self.hidden[: batch.num_tokens]
        for weight in self._weights:
            out = torch.relu(out @ weight)
        return out

    def eager(self, batch: BatchDescriptor) -> torch.Tensor:
        self.eager_runs.append(batch)
        return self.forward(batch)

    def capture(self, batch: BatchDescriptor) -> Captured:
        self.captures.append(batch)
        self.forward(batch)
        graph = graphs.new()
        with graphs.capture(graph, **self._options):
            out = self.forward(batch)
        return Captured(graph, inputs={"hidden": self.hidden}, outputs=out)

    def guarded(self, session: Session, *sizes: str, **settings: Any) -> GuardedCapture:
        settings.setdefault("mode", "enforce")
        decorate = guard("target", eager=self.eager, session=session, **settings)
        guarded = decorate(self.capture)
        guarded.warm_up(map(BatchDescriptor.parse, sizes or ("1x2", "2x2", "4x2", "8x2", "16x2")))
        return guarded
