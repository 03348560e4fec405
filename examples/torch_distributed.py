"""Record graphs that hold collectives, write a manifest on every rank, and audit them.

    torchrun --nproc-per-node 2 examples/torch_distributed.py

The graphs are captured by hand, with ``graphguard.record`` around each capture, and checked with
a ``SignatureTable``. With CUDA the collectives are NCCL's; without it gloo's, in emulated graphs.
"""

import os
import sys
import tempfile
from pathlib import Path

import torch
import torch.distributed as dist

import graphguard
from graphguard import BatchDescriptor, GraphKey, SignatureTable, audit

HIDDEN = 16
SIZES = [BatchDescriptor.of(num_reqs, 2) for num_reqs in (4, 8, 16)]
STEPS = [BatchDescriptor.of(16, 2), BatchDescriptor.of(7, 2), BatchDescriptor.of(7, 1)]


def forward(hidden: torch.Tensor, batch: BatchDescriptor) -> torch.Tensor:
    """Run one step: double the rows of the batch and sum them over the ranks."""
    out = hidden[: batch.num_tokens] * 2
    dist.all_reduce(out)
    return out


def capture_graphs(
    hidden: torch.Tensor, table: SignatureTable
) -> list[tuple[graphguard.Graph, torch.Tensor]]:
    """Capture and record a graph of each size; the table numbers them in this order."""
    captured = []
    for batch in SIZES:
        graph = graphguard.new_graph()
        with graphguard.record("target", batch, table=table) as recording:
            with graphguard.capture(graph):
                out = forward(hidden, batch)
            recording.captured(graph, inputs={"hidden": hidden}, outputs=out)
        captured.append((graph, out))
    return captured


def serve(hidden: torch.Tensor) -> None:
    """Check each step before it is launched: replay the graph that fits, or run eagerly."""
    table = SignatureTable()
    captured = capture_graphs(hidden, table)
    target = table.family(GraphKey("target"))
    for batch in STEPS:
        hidden.fill_(dist.get_rank() + 1)
        verdict = table.check(
            target, batch.num_reqs, batch.query_len, batch.num_tokens, batch.phase
        )
        if verdict.graph is None:
            out = forward(hidden, batch)
        else:
            graph, out = captured[verdict.graph]
            graph.replay()
        if dist.get_rank() == 0:
            print(f"{batch}: {verdict}, the sum over ranks is {out[0, 0].item():g}")


def audit_manifests() -> int:
    """Write a manifest on every rank and audit them on rank 0; return how much it found."""
    folder = [tempfile.mkdtemp(prefix="graphguard-")] if dist.get_rank() == 0 else [""]
    dist.broadcast_object_list(folder, src=0)
    path = graphguard.write_manifest(folder[0])
    dist.barrier()
    if dist.get_rank() != 0:
        return 0
    findings = audit.audit(audit.load([Path(folder[0])]).manifests)
    print(f"{path.parent}: {len(findings)} findings on {dist.get_world_size()} ranks")
    return len(findings)


def main() -> int:
    """Join the other ranks, serve and audit; 1 if the audit finds anything."""
    cuda = torch.cuda.is_available()
    if cuda:
        torch.cuda.set_device(int(os.environ["LOCAL_RANK"]))
    dist.init_process_group("nccl" if cuda else "gloo")
    hidden = torch.zeros(32, HIDDEN, device="cuda" if cuda else "cpu")
    dist.all_reduce(hidden)  # the communicator is made before it is captured
    serve(hidden)
    found = audit_manifests()
    dist.destroy_process_group()
    return 1 if found else 0


if __name__ == "__main__":
    sys.exit(main())
