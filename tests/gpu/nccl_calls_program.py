"""Ranks that capture collectives of NCCL: ``python -m tests.gpu.nccl_calls_program FILE R SIZE``.

With NCCL_MULTI_RANK_GPU_ENABLE=1 (NCCL 2.30 and newer) the ranks may share one GPU. Each rank
prints what was recorded of its graph as one line of JSON, and whether replays give what they must.
"""

from __future__ import annotations

import json
import sys
from typing import Any

import torch
import torch.distributed as dist

from graphguard import BatchDescriptor, Session, record
from graphguard.recorders import nccl_interposer

ELEMENTS = 256


def collectives(rank: int, size: int, tensors: dict[str, torch.Tensor]) -> None:
    """Make one call of each kind, two of them as one group."""
    dist.all_reduce(tensors["reduced"], op=dist.ReduceOp.MAX)
    dist.all_gather_into_tensor(tensors["gathered"], tensors["own"])
    dist.reduce_scatter_tensor(tensors["scattered"], tensors["gathered"])
    dist.broadcast(tensors["broadcast"], src=size - 1)
    if size > 1:
        peer = (rank + 1) % size
        operations = [
            dist.P2POp(dist.isend, tensors["own"], peer),
            dist.P2POp(dist.irecv, tensors["received"], (rank - 1) % size),
        ]
        for work in dist.batch_isend_irecv(operations):
            work.wait()


def new_tensors(rank: int, size: int) -> dict[str, torch.Tensor]:
    """Return the static tensors of the graph."""

    def filled(elements: int, value: float) -> torch.Tensor:
        return torch.full((elements,), value, device="cuda")

    return {
        "reduced": filled(ELEMENTS, rank),
        "own": filled(ELEMENTS, rank + 1),
        "gathered": filled(ELEMENTS * size, 0),
        "scattered": filled(ELEMENTS, 0),
        "broadcast": filled(ELEMENTS, rank),
        "received": filled(ELEMENTS, -1),
    }


def recorded(rank: int, size: int) -> dict[str, Any]:
    """Capture, replay twice, and tell what was recorded."""
    tensors = new_tensors(rank, size)
    # NCCL connects with the first calls, which must not be captured.
    collectives(rank, size, tensors)
    torch.cuda.synchronize()
    dist.barrier()
    graph = torch.cuda.CUDAGraph()
    with record("target", BatchDescriptor.of(4, 1), session=Session()) as recording:
        with torch.cuda.graph(graph):
            collectives(rank, size, tensors)
        recording.captured(graph)
    for name, value in new_tensors(rank, size).items():
        tensors[name].copy_(value)
    for _ in range(2):
        graph.replay()
    torch.cuda.synchronize()
    signature = recording.signature
    return {
        "calls": [
            (c.operation, c.count, c.reduction, c.root, c.peer, c.seen_by)
            for c in signature.collectives
        ],
        "disagreements": signature.disagreements,
        "interposed": nccl_interposer.loaded() is not None,
        "reduced": tensors["reduced"].unique().tolist(),
        "scattered": tensors["scattered"].unique().tolist(),
        "broadcast": tensors["broadcast"].unique().tolist(),
        "received": tensors["received"].unique().tolist(),
        "nccl": torch.cuda.nccl.version(),
    }


def main() -> None:
    """Join the group, record, and print."""
    file, rank, size = sys.argv[1], int(sys.argv[2]), int(sys.argv[3])
    torch.cuda.set_device(rank % torch.cuda.device_count())
    dist.init_process_group("nccl", init_method=f"file://{file}", rank=rank, world_size=size)
    result = recorded(rank, size)
    dist.destroy_process_group()
    print(json.dumps(result))


if __name__ == "__main__":
    main()
