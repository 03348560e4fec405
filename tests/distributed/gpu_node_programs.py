"""What two ranks run that share one GPU with NCCL: a graph with collectives, looked into."""

from __future__ import annotations

from typing import Any

import torch
import torch.distributed as dist

from graphguard import BatchDescriptor, graphs, record
from graphguard.communication import communication, function_name, unseen
from graphguard.session import Session


def nccl_nodes() -> dict[str, Any]:
    """Capture three collectives and return the kernels of NCCL that the graph holds."""
    group = dist.new_group(backend="nccl")
    x = torch.ones(1 << 16, device="cuda")
    gathered = torch.empty(2 << 16, device="cuda")

    def step() -> None:
        dist.all_reduce(x, group=group)
        dist.all_gather_into_tensor(gathered, x, group=group)
        dist.all_reduce(x, group=group)

    # Communicators are made at the first call, which cannot be captured.
    step()
    torch.cuda.synchronize()
    graph = graphs.new()
    with record("target", BatchDescriptor.of(16, 2), session=Session()) as recording:
        with graphs.capture(graph):
            step()
        recording.captured(graph, inputs={"x": x})
    graph.replay()
    torch.cuda.synchronize()
    signature = recording.signature
    kernels = [node for node in signature.graph_nodes if communication(node) is not None]
    return {
        "kernels": sorted((function_name(node.name), node.count) for node in kernels),
        "calls": [call.operation for call in signature.collectives],
        "unseen": [str(one) for one in unseen(signature.graph_nodes, signature.collectives)],
        "unseen without calls": sum(one.nodes for one in unseen(signature.graph_nodes, ())),
    }
