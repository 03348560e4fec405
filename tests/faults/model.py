"""The guarded steps of the faults: real collectives whose results are known, in emulated graphs.

gloo notices when the process at the other end is gone, and raises. The captured collectives of
NCCL do not: they spin. So a launch whose collective fails here waits on, as it would on a GPU, and
only what graphguard does ends it.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import TYPE_CHECKING, Any

import torch
import torch.distributed as dist

from graphguard import BatchDescriptor, Captured, GuardedCapture, Session, guard
from graphguard.graphs.emulated import EmulatedGraph, capture

if TYPE_CHECKING:
    from tests.faults.job import Job

WIDTH = 4
"""Elements of a token."""

MAX_TOKENS = 64
SIZES = ("1x2", "2x2", "4x2", "8x2", "16x2")

Body = Callable[["Model", int], torch.Tensor]
"""The collectives of a step of so many tokens, called by capture and eager run alike."""


def target(model: Model, tokens: int) -> torch.Tensor:
    rows = model.hidden[: tokens * WIDTH].clone()
    dist.all_reduce(rows)
    dist.broadcast(model.root_rows[:tokens], 0)
    return rows


def drafter(model: Model, tokens: int) -> torch.Tensor:
    dist.broadcast(model.root_rows[:tokens], 0)
    rows = model.hidden[: tokens * WIDTH].clone()
    dist.all_reduce(rows)
    return rows


def one_size(model: Model, tokens: int) -> torch.Tensor:
    """Any two launches of this pair with each other, so that a wrong one harms nobody."""
    rows = model.hidden.clone()
    dist.all_reduce(rows)
    return rows[: tokens * WIDTH]


def alone(model: Model, tokens: int) -> torch.Tensor:
    """No collective: ranks may run ahead of each other as far as they like."""
    return model.hidden[: tokens * WIDTH] * 2


class Model:
    """One role of a rank's program.

    Args:
        job: The rank.
        role: The role.
        body: The collectives of a step, as this rank captures them.
        eager: The same as this rank runs them without a graph; ``body`` without it.
    """

    def __init__(self, job: Job, role: str, body: Body, eager: Body | None = None) -> None:
        self.hidden = torch.full((MAX_TOKENS * WIDTH,), float(job.rank + 1))
        self.root_rows = torch.zeros(MAX_TOKENS)
        self.body = body
        self.fails_for = ""
        self._job = job
        self._role = role
        self._eager = eager or body
        self._sum = sum(range(1, job.ranks + 1))
        self._reduces = body is not alone

    def guarded(self, sizes: tuple[str, ...] = SIZES, **settings: Any) -> GuardedCapture:
        """Return the guard of this role, warmed up."""
        settings.setdefault("mode", self._job.mode)
        settings.setdefault("group", dist.group.WORLD)
        # Where a size was captured, the program uses its graph; it pads nothing by itself.
        step = guard(self._role, eager=self.eager, session=Session(), **settings)(self.capture)
        self._job.watch(step)
        step.warm_up(map(BatchDescriptor.parse, sizes))
        return step

    def capture(self, batch: BatchDescriptor) -> Captured:
        if str(batch) == self.fails_for:
            raise RuntimeError("out of memory")
        graph = _Graph(self._job, f"{self._role} replay {batch}")
        with capture(graph):
            out = self.body(self, batch.num_tokens)
        return Captured(graph, inputs={"hidden": self.hidden}, outputs=out)

    def eager(self, batch: BatchDescriptor) -> torch.Tensor:
        launched: list[torch.Tensor] = []
        self._job.launched(
            f"{self._role} eager {batch}",
            lambda: launched.append(self._eager(self, batch.num_tokens)),
        )
        return launched[0]

    def check(self, rows: torch.Tensor) -> bool:
        """Whether the result of a step is what all ranks together should have computed."""
        expected = float(self._sum) if self._reduces else 2.0 * (self._job.rank + 1)
        return bool((rows == expected).all())


class _Graph(EmulatedGraph):
    """An emulated graph that tells of its launches."""

    def __init__(self, job: Job, what: str) -> None:
        super().__init__()
        self._job = job
        self._what = what

    def replay(self) -> None:
        self._job.launched(self._what, super().replay)


def wait_as_a_gpu_would() -> None:
    """Wait without an end for a peer that is gone."""
    while True:
        time.sleep(60.0)
