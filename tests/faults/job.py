"""One rank of a faulty run, as its program sees it."""

from __future__ import annotations

import os
import signal
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch.distributed as dist

from graphguard import BatchDescriptor, GuardedCapture
from graphguard.agreement.divergence import Divergence
from graphguard.agreement.group import Agreement
from graphguard.agreement.members import LocalLedger
from tests.faults.events import EventLog
from tests.faults.model import Body, Model, drafter, target, wait_as_a_gpu_would

FAULTY = 1
"""The rank that does something else than the others."""

PATIENCE_SECONDS = 15.0
"""How long a program waits for another rank where it has to, before it gives up."""


class Job:
    """A rank of a run.

    Attributes:
        rank: Its number.
        ranks: How many there are.
        mode: The mode of its guards.
        folder: The folder of the run.
        events: Where it writes what it does.
    """

    def __init__(self, rank: int, ranks: int, mode: str, folder: Path) -> None:
        self.rank = rank
        self.ranks = ranks
        self.mode = mode
        self.folder = folder
        self.events = EventLog(folder / f"events.{rank}")
        self.on_launch: Callable[[int], None] = lambda number: None
        self._agreements: list[Agreement] = []
        self._launches = 0

    @property
    def faulty(self) -> bool:
        """Whether this is the rank that does something else."""
        return self.rank == FAULTY

    @property
    def agreement(self) -> Agreement | None:
        """The ranks, as the guards of this rank know them; None in the mode off."""
        return self._agreements[0] if self._agreements else None

    @property
    def ledger(self) -> LocalLedger:
        """The ledger, which must be there."""
        assert self.agreement is not None
        assert self.agreement.ledger is not None
        return self.agreement.ledger

    def target(self, body: Body = target, sizes: tuple[str, ...] = ("4x2", "8x2"), **settings: Any):  # type: ignore[no-untyped-def]
        return Model(self, "target", body)

    def watch(self, step: GuardedCapture) -> None:
        """Write down every difference that the agreement of a guard reports."""
        agreement = step.agreement
        if agreement is None or agreement in self._agreements:
            return
        self._agreements.append(agreement)
        report = agreement.report

        def reported(*arguments: Any) -> Divergence:
            divergence = report(*arguments)
            self.events.write(
                "report",
                kind=str(divergence.kind),
                step=divergence.step,
                ranks=divergence.ranks,
                text=divergence.text,
            )
            return divergence

        agreement.report = reported  # type: ignore[method-assign]
