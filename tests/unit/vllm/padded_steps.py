"""What the views read of a runner, without vLLM."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import torch

from graphguard.vllm.padding_views import Extent

MAX_REQS, BLOCKS, MODEL_LEN = 20, 6, 100
SEEDS_STEP = Extent(15, 16, 30, 32, 2)
"""The step of the bug reports: 15 requests of 2 tokens in the graph of 16."""


def two_sided(size: int, device: str) -> Any:
    cpu = torch.zeros(size, dtype=torch.int32)
    gpu = cpu if device == "cpu" else torch.zeros(size, dtype=torch.int32, device=device)
    return SimpleNamespace(cpu=cpu, gpu=gpu, np=cpu.numpy())


def v1_runner(device: str) -> Any:
    """What the views read of a V1 runner. A ``meta`` tensor has no values to read, like a GPU's."""
    table = SimpleNamespace(
        block_table=SimpleNamespace(
            gpu=torch.zeros(MAX_REQS, BLOCKS, dtype=torch.int32, device=device)
        ),
        slot_mapping=SimpleNamespace(
            gpu=torch.full((MAX_REQS * 4,), -1, dtype=torch.int64, device=device)
        ),
    )
    starts = two_sided(MAX_REQS + 1, device)
    starts.np[:] = [min(2 * i, 30) for i in range(MAX_REQS + 1)]
    return SimpleNamespace(
        max_model_len=MODEL_LEN,
        seq_lens=torch.zeros(MAX_REQS, dtype=torch.int32, device=device),
        optimistic_seq_lens_cpu=torch.zeros(MAX_REQS, dtype=torch.int32),
        query_start_loc=starts,
        positions=torch.zeros(MAX_REQS * 4, dtype=torch.int64, device=device),
        input_batch=SimpleNamespace(block_table=SimpleNamespace(block_tables=[table, table])),
    )
