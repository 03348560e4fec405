"""One rank of the demo. Run as ``python -m graphguard.demo.worker`` by the demo itself.

It says what it does as lines of JSON on standard output, each before it does it, so that the last
line of a rank that hangs says where it stands.
"""

from __future__ import annotations

import argparse
import faulthandler
import json
import os
import signal
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch
import torch.distributed as dist

from graphguard.batch import BatchDescriptor
from graphguard.demo.model import MAX_TOKENS, VOCABULARY, TensorParallelModel
from graphguard.graph_set import Captured
from graphguard.graphs import emulated
from graphguard.graphs.emulated import EmulatedGraph
from graphguard.guard import guard
from graphguard.guarded_capture import GuardedCapture
from graphguard.session import default_session

STEPS = tuple(map(BatchDescriptor.parse, ("16x2", "16x2", "15x2", "15x1")))
CAPTURED = tuple(BatchDescriptor.of(num_reqs, 2) for num_reqs in (1, 2, 4, 8, 16))


def say(**event: Any) -> None:  # noqa: ANN401 - whatever JSON can hold
    """Write one line for the demo to read."""
    print(json.dumps(event), flush=True)


class NaiveDispatcher:
    """Chooses a graph as a program might that nobody guards.

    Rank 0 takes the nearest captured number of requests. The other ranks insist on the query
    length too, and run eagerly where no graph has it.
    """

    def __init__(self, role: str) -> None:
        self._role = role

    def __call__(
        self, batch: BatchDescriptor, captured: Sequence[BatchDescriptor]
    ) -> BatchDescriptor | None:
        """Return the captured descriptor to replay, or None to run eagerly."""
        nearest = min(captured, key=lambda other: abs(other.num_reqs - batch.num_reqs))
        if dist.get_rank() == 0 or nearest.query_len == batch.query_len:
            say(role=self._role, does=f"replay {nearest}")
            return nearest
        say(role=self._role, does="run eagerly")
        return None


def guarded(role: str, model: TensorParallelModel, mode: str) -> GuardedCapture:
    """Put a guard in front of a model's graphs."""

    def fill_padding(batch: BatchDescriptor, padded: BatchDescriptor) -> None:
        model.tokens[batch.num_tokens : padded.num_tokens].zero_()

    @guard(
        role,
        eager=model.forward,
        mode=mode,
        query_len=2,
        choose=NaiveDispatcher(role),
        fill_padding=fill_padding,
        unpad="tokens",
    )
    def capture(batch: BatchDescriptor) -> Captured:
        # The model is on the CPU with gloo, on a machine with CUDA as well.
        graph = EmulatedGraph()
        with emulated.capture(graph):
            logits = model.forward(batch)
        return Captured(graph, inputs={"tokens": model.tokens}, outputs=logits)

    capture.warm_up(CAPTURED)
    return capture


def set_tokens(models: Sequence[TensorParallelModel], step: int, batch: BatchDescriptor) -> None:
    """Fill the static inputs of a step, alike on every rank."""
    generator = torch.Generator().manual_seed(step)
    tokens = torch.randint(VOCABULARY, (MAX_TOKENS,), generator=generator)
    for model in models:
        model.tokens[: batch.num_tokens].copy_(tokens[: batch.num_tokens])


def run(mode: str, directory: Path | None) -> None:
    """Run all steps, once eagerly to compare with, once through the guard."""
    target = TensorParallelModel(2, seed=1, verifies=True)
    drafter = TensorParallelModel(1, seed=2, verifies=False)
    models = {"target": target, "drafter": drafter}
    expected = []
    for step, batch in enumerate(STEPS):
        set_tokens((target, drafter), step, batch)
        expected.append({role: model.forward(batch) for role, model in models.items()})

    guards = {role: guarded(role, model, mode) for role, model in models.items()}
    if directory is not None:
        default_session.write_manifest(directory)
    dist.barrier()
    say(ready=True)
    for step, batch in enumerate(STEPS):
        set_tokens((target, drafter), step, batch)
        for role, capture in guards.items():
            say(step=step, batch=str(batch), role=role)
            logits = capture(batch)
            difference = (logits - expected[step][role]).abs().max().item()
            verdict = capture.last_verdict
            say(
                step=step,
                batch=str(batch),
                role=role,
                action=verdict and str(verdict.action),
                reason=verdict and str(verdict.reason),
                difference=difference,
            )
    say(does="wait for the other ranks at the end")
    dist.barrier()
    say(done=True)


def main() -> None:
    """Join the other ranks and run."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--mode", required=True)
    parser.add_argument("--rank", type=int, required=True)
    parser.add_argument("--ranks", type=int, required=True)
    parser.add_argument("--rendezvous", type=Path, required=True)
    parser.add_argument("--stacks", type=Path, required=True)
    parser.add_argument("--manifests", type=Path)
    arguments = parser.parse_args()

    # The demo asks for stacks with this signal when a rank does not move any more.
    with arguments.stacks.open("w") as stacks:
        faulthandler.register(signal.SIGUSR1, file=stacks, all_threads=False)
        # All ranks are on this machine, whatever its name resolves to.
        os.environ.setdefault("GLOO_SOCKET_IFNAME", "lo")
        torch.set_num_threads(1)
        dist.init_process_group(
            "gloo",
            init_method=f"file://{arguments.rendezvous}",
            rank=arguments.rank,
            world_size=arguments.ranks,
        )
        with torch.no_grad():
            run(arguments.mode, arguments.manifests)
        dist.destroy_process_group()


if __name__ == "__main__":
    main()
