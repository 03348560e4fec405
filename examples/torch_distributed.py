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
from graphguard import Action, BatchDescriptor, GraphKey, SignatureTable, audit

HIDDEN = 16


def main() -> int:
    """Capture, replay what fits, and audit; 1 if the audit finds anything."""
    cuda = torch.cuda.is_available()
    if cuda:
        torch.cuda.set_device(int(os.environ["LOCAL_RANK"]))
    dist.init_process_group("nccl" if cuda else "gloo")
    rank = dist.get_rank()
    hidden = torch.zeros(32, HIDDEN, device="cuda" if cuda else "cpu")
    dist.all_reduce(hidden)  # the communicator is made before it is captured

    table = SignatureTable()
    captured = []
    for num_reqs in (4, 8, 16):
        batch = BatchDescriptor.of(num_reqs, 2)
        graph = graphguard.new_graph()
        with graphguard.record("target", batch, table=table) as recording:
            with graphguard.capture(graph):
                out = hidden[: batch.num_tokens] * 2
                dist.all_reduce(out)
            recording.captured(graph, inputs={"hidden": hidden}, outputs=out)
        captured.append((graph, out))

    target = table.family(GraphKey("target"))
    for batch in (BatchDescriptor.of(16, 2), BatchDescriptor.of(7, 2), BatchDescriptor.of(7, 1)):
        hidden.fill_(rank + 1)
        verdict = table.check(
            target, batch.num_reqs, batch.query_len, batch.num_tokens, batch.phase
        )
        if verdict.graph is not None and verdict.action <= Action.PAD:
            graph, out = captured[verdict.graph]
            graph.replay()
        else:
            out = hidden[: batch.num_tokens] * 2
            dist.all_reduce(out)
        if rank == 0:
            print(f"{batch}: {verdict}, the sum over ranks is {out[0, 0].item():g}")

    folder = [tempfile.mkdtemp(prefix="graphguard-")] if rank == 0 else [""]
    dist.broadcast_object_list(folder, src=0)
    path = graphguard.write_manifest(folder[0])
    dist.barrier()
    findings = []
    if rank == 0:
        findings = audit.audit(audit.load([Path(folder[0])]).manifests)
        print(f"{path.parent}: {len(findings)} findings on {dist.get_world_size()} ranks")
    dist.destroy_process_group()
    return 1 if findings else 0


if __name__ == "__main__":
    sys.exit(main())
