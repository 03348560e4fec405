"""What ``graphguard run`` is tried on: ranks that do not know of it, started by torchrun.

They use graphs of graphguard where a program on a GPU would use CUDA graphs; nothing in them writes
a manifest or names a directory.

    python -m torch.distributed.run --nproc-per-node 2 -m tests.distributed.run_programs NAME
"""

from __future__ import annotations

import sys
import time

import torch
import torch.distributed as dist

from graphguard import BatchDescriptor, Captured, guard, record
from graphguard.graphs.emulated import EmulatedGraph, capture

FOREVER_SECONDS = 120.0


def alike() -> None:
    """Capture the same on every rank."""
    _capture(2)


def one_rank_reduces_more() -> None:
    """Capture one all-reduce too many on rank 1."""
    _capture(3 if dist.get_rank() == 1 else 2)


def unrecorded() -> None:
    """Capture and replay as a program does that has never heard of a recording."""
    x = torch.ones(8)
    graph = EmulatedGraph()
    with capture(graph):
        dist.all_reduce(x)
    graph.replay()
    assert x[0].item() == dist.get_world_size()


def hang() -> None:
    """Replay a graph on rank 0 while rank 1 does something else."""
    x = torch.zeros(8)

    @guard("target")
    def step(batch: BatchDescriptor) -> Captured:
        graph = EmulatedGraph()
        with capture(graph):
            dist.all_reduce(x)
        return Captured(graph, inputs={"x": x}, outputs=x)

    batch = BatchDescriptor.of(4, 2)
    step.warm_up([batch])
    step(batch)
    dist.barrier()
    if dist.get_rank() == 0:
        step(batch)
    time.sleep(FOREVER_SECONDS)


def _capture(calls: int) -> None:
    x = torch.zeros(8)
    graph = EmulatedGraph()
    with record("target", BatchDescriptor.of(4, 2)) as recording:
        with capture(graph):
            for _ in range(calls):
                dist.all_reduce(x)
        recording.captured(graph)


if __name__ == "__main__":
    torch.set_num_threads(1)
    dist.init_process_group("gloo")
    programs = (alike, one_rank_reduces_more, unrecorded, hang)
    {program.__name__: program for program in programs}[sys.argv[1]]()
    dist.destroy_process_group()
