"""A rank that serves batches: two models, and a guard in front of each.

It says what it does as lines of JSON on standard output, each before it does it, so that the last
line of a rank that hangs says where it stands.
"""

from __future__ import annotations

import json
import time
from collections.abc import Callable, Iterable, Sequence
from typing import Any

import torch
import torch.distributed as dist

from graphguard.agreement.members import LocalLedger
from graphguard.batch import BatchDescriptor
from graphguard.demo.model import MAX_TOKENS, VOCABULARY, TensorParallelModel
from graphguard.demo.plan import CAPTURED, ROLES
from graphguard.graph_set import Captured
from graphguard.graphs import emulated
from graphguard.graphs.emulated import EmulatedGraph
from graphguard.guard import guard
from graphguard.guarded_capture import GuardedCapture

PATIENCE_SECONDS = 30.0


def say(**event: Any) -> None:  # noqa: ANN401 - whatever JSON can hold
    """Write one line for the demo to read."""
    print(json.dumps(event), flush=True)


def wait_until(true: Callable[[], bool]) -> None:
    """Wait for other ranks, where the demo lets one come first.

    Raises:
        TimeoutError: If they keep it waiting for too long.
    """
    deadline = time.monotonic() + PATIENCE_SECONDS
    while not true():
        if time.monotonic() > deadline:
            raise TimeoutError("another rank did not come to where this one waits for it")
        time.sleep(0.001)


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


class Serving:
    """A target and a drafter, each run once eagerly to compare with, and then guarded.

    Args:
        mode: The mode of the guards.
        batches: What is served, step by step.
        new_graph: Makes the graphs to capture into. The models are on the CPU with gloo, on a
            machine with CUDA as well.

    Attributes:
        models: The models by role.
    """

    def __init__(
        self,
        mode: str,
        batches: Sequence[BatchDescriptor],
        new_graph: type[EmulatedGraph] = EmulatedGraph,
    ) -> None:
        target = TensorParallelModel(2, seed=1, verifies=True)
        drafter = TensorParallelModel(1, seed=2, verifies=False)
        self.models = dict(zip(ROLES, (target, drafter), strict=True))
        self._batches = batches
        self._new_graph = new_graph
        self._expected = []
        for step, batch in enumerate(batches):
            self._set_tokens(step)
            self._expected.append({r: model.forward(batch) for r, model in self.models.items()})
        self._guards = {role: self._guarded(role, mode) for role in ROLES}
        dist.barrier()
        say(ready=True)

    @property
    def ledger(self) -> LocalLedger:
        """The ledger of the ranks; there is one if they are guarded."""
        agreement = self._guards[ROLES[0]].agreement
        assert agreement is not None  # noqa: S101 - guards that enforce have met
        assert agreement.ledger is not None  # noqa: S101
        return agreement.ledger

    def serve(self, step: int, roles: Sequence[str] = ROLES) -> None:
        """Run a step through the guards, and say how far its output is from the eager run's."""
        batch = self._batches[step]
        self._set_tokens(step)
        for role in roles:
            capture = self._guards[role]
            say(step=step, batch=str(batch), role=role)
            logits = capture(batch)
            difference = (logits - self._expected[step][role]).abs().max().item()
            verdict = capture.last_verdict
            say(
                step=step,
                batch=str(batch),
                role=role,
                action=verdict and str(verdict.action),
                reason=verdict and str(verdict.reason),
                difference=difference,
            )

    @property
    def others(self) -> list[int]:
        """The other ranks. All are in one group on one machine: their places are their ranks."""
        ledger = self.ledger
        return [rank for rank in range(len(ledger.ranks)) if rank != ledger.place]

    def wait_until_published(self, launch: int, ranks: Iterable[int]) -> None:
        """Wait until other ranks have come to a launch of the group.

        Raises:
            TimeoutError: If they do not come.
        """
        passed = self.ledger.native.passed
        wait_until(lambda: all(passed(rank) >= launch for rank in ranks))

    def _guarded(self, role: str, mode: str) -> GuardedCapture:
        model = self.models[role]

        def fill_padding(batch: BatchDescriptor, padded: BatchDescriptor) -> None:
            model.tokens[batch.num_tokens : padded.num_tokens].zero_()

        @guard(
            role,
            eager=model.forward,
            mode=mode,
            query_len=2,
            # With a group this is no decision that one rank takes alone.
            on_divergence={"input_address": "eager"},
            check_inputs="address",
            choose=NaiveDispatcher(role),
            fill_padding=fill_padding,
            unpad="tokens",
            group=dist.group.WORLD,
        )
        def capture(batch: BatchDescriptor) -> Captured:
            graph = self._new_graph()
            with emulated.capture(graph):
                logits = model.forward(batch)
            return Captured(graph, inputs={"tokens": model.tokens}, outputs=logits)

        capture.warm_up(CAPTURED)
        return capture

    def _set_tokens(self, step: int) -> None:
        """Fill the static inputs of a step, alike on every rank."""
        num_tokens = self._batches[step].num_tokens
        generator = torch.Generator().manual_seed(step)
        tokens = torch.randint(VOCABULARY, (MAX_TOKENS,), generator=generator)
        for model in self.models.values():
            model.tokens[:num_tokens].copy_(tokens[:num_tokens])
