"""Let ranks agree on every step, and see what happens when one of them diverges.

    torchrun --nproc-per-node 2 examples/agreeing_ranks.py

Every rank replays the same graphs. Then a static tensor of rank 0 is replaced, as allocators and
frameworks do it; only rank 0 can see that. The ranks vote, and all of them run the step eagerly.
At last rank 1 asks for another batch than the others. That step is refused before any rank
launches it, with an error that names both sides.
"""

import os

import torch
import torch.distributed as dist

import graphguard
from graphguard import BatchDescriptor, Captured, GuardedCapture, RanksDiverged

HIDDEN = 16
MAX_TOKENS = 32


def guarded(hidden: torch.Tensor) -> GuardedCapture:
    """Capture a graph of each size, and compare it with the other ranks'."""

    def forward(batch: BatchDescriptor) -> torch.Tensor:
        out = hidden[: batch.num_tokens] * 2
        dist.all_reduce(out)
        return out

    @graphguard.guard(
        "target",
        eager=forward,
        mode="enforce",
        unpad="tokens",
        group=dist.group.WORLD,
        check_inputs="address",
        on_divergence={"input_address": "eager"},
        vote_seconds=10.0,
    )
    def capture(batch: BatchDescriptor) -> Captured:
        graph = graphguard.new_graph()
        with graphguard.capture(graph):
            out = forward(batch)
        return Captured(graph, inputs={"hidden": hidden}, outputs=out)

    capture.warm_up([BatchDescriptor.of(num_reqs, 2) for num_reqs in (4, 8, 16)])
    return capture


def main() -> None:
    """Serve three steps."""
    use_cuda = torch.cuda.is_available()
    rank = int(os.environ["LOCAL_RANK"])
    device = torch.device("cuda", rank) if use_cuda else torch.device("cpu")
    if use_cuda:
        torch.cuda.set_device(device)
    dist.init_process_group("nccl" if use_cuda else "gloo")
    hidden = torch.ones(MAX_TOKENS, HIDDEN, device=device)
    with torch.no_grad():
        step = guarded(hidden)
        step(BatchDescriptor.of(15, 2))
        print(f"rank {rank}: 15x2 is {step.last_verdict}", flush=True)

        if rank == 0:
            hidden.data = torch.ones(MAX_TOKENS, HIDDEN, device=device)
        step(BatchDescriptor.of(8, 2))
        print(f"rank {rank}: 8x2 is {step.last_verdict}", flush=True)

        try:
            step(BatchDescriptor.of(4 if rank == 1 else 16, 2))
        except RanksDiverged as error:
            print(f"rank {rank}: {error.message}", flush=True)
    dist.destroy_process_group()


if __name__ == "__main__":
    main()
