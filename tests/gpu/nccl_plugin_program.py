"""A rank that captures collectives: ``python -m tests.gpu.nccl_plugin_program FILE RANK SIZE``.

Prints, as one line of JSON, what the profiler plugin's log holds of the capture and of its replays,
how many nodes the graph has, and how long a replay takes. Where the plugin is not loaded, the log
is null: that is what the other figures are compared with.
"""

from __future__ import annotations

import ctypes
import json
import statistics
import sys
import time
from collections.abc import Callable
from typing import Any

import torch
import torch.distributed as dist

from graphguard.recorders import nccl_plugin
from graphguard.recorders.nccl_calls import NcclCall

ELEMENTS = 256
REPLAYS = 50


def collectives(rank: int, size: int) -> Callable[[], None]:
    """Return a function that makes one call of each kind, the last two as one group."""
    own = torch.full((ELEMENTS,), float(rank + 1), device="cuda")
    many = torch.zeros(ELEMENTS * size, device="cuda")
    received = torch.zeros(ELEMENTS, device="cuda")

    def call() -> None:
        dist.all_reduce(own, op=dist.ReduceOp.MAX)
        dist.all_gather_into_tensor(many, own)
        dist.reduce_scatter_tensor(own, many)
        dist.broadcast(own, src=size - 1)
        if size > 1:
            operations = [
                dist.P2POp(dist.isend, own, (rank + 1) % size),
                dist.P2POp(dist.irecv, received, (rank - 1) % size),
            ]
            for work in dist.batch_isend_irecv(operations):
                work.wait()

    return call


def told(call: NcclCall) -> dict[str, Any]:
    """Return what is compared of a call."""
    fields = ("operation", "count", "dtype", "root", "rank", "num_ranks", "group", "captured")
    return {name: getattr(call, name) for name in (*fields, "capture_id", "communicator_hash")}


def nodes_of(graph: torch.cuda.CUDAGraph) -> int:
    """Return how many nodes the captured graph has, as the driver counts them."""
    count = ctypes.c_size_t(0)
    raw = ctypes.c_void_p(graph.raw_cuda_graph())
    result = ctypes.CDLL("libcuda.so.1").cuGraphGetNodes(raw, None, ctypes.byref(count))
    assert result == 0
    return count.value


def median_replay(graph: torch.cuda.CUDAGraph) -> float:
    """Return the median time of a replay and its end, in seconds."""
    times = []
    for _ in range(REPLAYS):
        begin = time.perf_counter()
        graph.replay()
        torch.cuda.synchronize()
        times.append(time.perf_counter() - begin)
    return statistics.median(times)


def main() -> None:
    """Join the group, capture, replay and print."""
    file, rank, size = sys.argv[1], int(sys.argv[2]), int(sys.argv[3])
    torch.cuda.set_device(rank % torch.cuda.device_count())
    dist.init_process_group("nccl", init_method=f"file://{file}", rank=rank, world_size=size)
    call = collectives(rank, size)
    # NCCL connects with the first calls, which must not be captured.
    call()
    torch.cuda.synchronize()
    dist.barrier()

    log = nccl_plugin.log()
    graph = torch.cuda.CUDAGraph(keep_graph=True)
    if log is not None:
        log.begin()
    with torch.cuda.graph(graph):
        call()
    captured = None
    if log is not None:
        log.end()
        captured = [told(one) for one in log.take().calls]
        log.begin()
    result: dict[str, Any] = {"captured": captured, "nodes": nodes_of(graph)}
    result["replay"] = median_replay(graph)
    if log is not None:
        log.end()
        result["replayed"] = len(log.take().calls)
        result["status"] = nccl_plugin.status()
    dist.destroy_process_group()
    print(json.dumps(result))


if __name__ == "__main__":
    main()
