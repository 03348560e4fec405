"""One rank of a faulty run: the program that every fault is put into."""

from __future__ import annotations

import os
import signal
import threading
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from graphguard import BatchDescriptor, GuardedCapture
from graphguard.agreement.divergence import Divergence
from graphguard.agreement.group import Agreement
from graphguard.agreement.launches import Outcome
from graphguard.agreement.members import LocalLedger
from tests.faults.events import EventLog
from tests.faults.model import Body, Model, drafter, target, wait_as_a_gpu_would

AT = 4
"""The step in which it does."""

PLAN = (
    "target 4x2",
    "drafter 4x2",
    "target 8x2",
    "drafter 8x2",
    "target 16x2",
    "drafter 16x2",
    "target 4x2",
    "drafter 4x2",
)
"""What a run serves: the role and the batch of each step."""

PATIENCE_SECONDS = 15.0
"""How long a program waits for another rank, where it has to wait for one."""

HANG_SECONDS = 3.0
"""How long the steps of a run take, where nothing is to end them, before the run ends them."""

HANG_EXIT_CODE = 99

LINGER_SECONDS = 0.6
"""How long a program that is only observed goes on after its last step."""


class Job:
    """A rank of a run.

    Attributes:
        rank: Its number.
        ranks: How many there are.
        odd: Which of them does something else than the others.
        others: The others.
        mode: The mode of its guards.
        folder: The folder of the run.
        events: Where it writes what it does.
        before: What it does before a step, by the number of the step.
        on_launch: What it does in a step when it is about to launch.
        guards: Its guards by role, with what they guard.
        fails_for: The size that its captures fail for.
        number: The step that it is in, as it counts.
    """

    def __init__(self, rank: int, ranks: int, odd: int, mode: str, folder: Path) -> None:
        self.rank = rank
        self.ranks = ranks
        self.odd = odd
        self.others = [other for other in range(ranks) if other != odd]
        self.mode = mode
        self.folder = folder
        self.events = EventLog(folder / f"events.{rank}")
        self.before: dict[int, Callable[[], None]] = {}
        self.on_launch: dict[int, Callable[[], None]] = {}
        self.guards: dict[str, tuple[Model, GuardedCapture]] = {}
        self.fails_for = ""
        self.number = 0
        self._agreement: Agreement | None = None
        self._choice = ""
        self._votes = False
        self._has_reported = threading.Event()

    @property
    def faulty(self) -> bool:
        """Whether this is the rank that does something else."""
        return self.rank == self.odd

    @property
    def agreement(self) -> Agreement:
        """The ranks, as the guards of this rank know them."""
        assert self._agreement is not None
        return self._agreement

    @property
    def ledger(self) -> LocalLedger:
        """The ledger of the ranks."""
        assert self.agreement.ledger is not None
        return self.agreement.ledger

    # ---- the program ----------------------------------------------------------------------------

    def guard(self, role: str, body: Body, *, eager: Body | None = None, **settings: Any) -> None:
        """Make and warm up the guard of a role."""
        self._votes = "vote_seconds" in settings
        model = Model(self, role, body, eager)
        model.fails_for = self.fails_for
        self.guards[role] = model, model.guarded(**settings)
        if self._agreement is not None and self._agreement.ledger is not None:
            self.events.write("ledger", file=self.ledger.segment.name.file)

    def prepare(self, body: Body | None = None, **settings: Any) -> None:
        """Make the guards of a target and a drafter, alike but for the order of their calls."""
        settings.setdefault("choose", self._choose)
        self.guard("target", body or target, **settings)
        self.guard("drafter", body or drafter, **settings)

    def serve(self, steps: Sequence[str] = PLAN) -> None:
        """Run steps: a role and a batch, and in ``4x2 > 8x2`` or ``4x2 > eager`` what is chosen."""
        if self.mode != "enforce" and self.number == 0:
            threading.Thread(target=self._end_when_it_hangs, daemon=True).start()
        for step in steps:
            self.number += 1
            role, batch, *choice = step.replace(">", "").split()
            self._choice = choice[0] if choice else batch
            self.before.get(self.number, _nothing)()
            self.step(role, batch)
        if self.mode == "observe":
            self._has_reported.wait(LINGER_SECONDS)

    def step(self, role: str, batch: str) -> None:
        """Run one step and look at its result."""
        model, guarded = self.guards[role]
        self.events.write("about", step=self.number, what=f"{role} {batch}")
        rows = guarded(BatchDescriptor.parse(batch))
        self.events.write(
            "returned",
            step=self.number,
            right=model.check(rows),
            verdict=str(guarded.last_verdict),
        )

    def launched(self, what: str, launch: Callable[[], object]) -> None:
        """Launch something, and wait as a GPU would if a peer is gone."""
        step = self.number if self._agreement is None else self._published()
        self.events.write("launch", step=step, what=what)
        self.on_launch.get(self.number, _nothing)()
        try:
            launch()
        except RuntimeError as error:
            self.events.write("held", step=step, error=str(error)[:200])
            wait_as_a_gpu_would()

    # ---- what faults are made of ----------------------------------------------------------------

    def fault(self) -> None:
        """Write down that the ranks differ from here on."""
        self.events.write("fault", step=self.number)

    def come_last(self, step: int = AT) -> None:
        """Let the faulty rank come to a step, and all later ones, when all others have come."""
        if self.faulty:
            for later in range(step, step + len(PLAN)):
                self._await(later, self.others, later == step)

    def come_first(self, step: int = AT) -> None:
        """Let the faulty rank publish a step, and all later ones, before the others."""
        if not self.faulty:
            for later in range(step, step + len(PLAN)):
                self._await(later, [self.odd], later == step)

    def passed(self, rank: int) -> int:
        """Return the last step that a rank has published."""
        return self.ledger.native.passed(rank)

    def wait_until(self, true: Callable[[], bool]) -> None:
        """Wait for another rank."""
        deadline = time.monotonic() + PATIENCE_SECONDS
        while not true():
            if time.monotonic() > deadline:
                raise TimeoutError("another rank did not come to where this one waits for it")
            time.sleep(0.0005)

    def wait_for_end_of(self, rank: int) -> None:
        """Wait until the process of another rank is gone."""
        self.wait_until(lambda: not self.ledger.segment.held(rank))

    def has_ended(self, rank: int) -> bool:
        """Whether another rank has come to its end, by an error or not."""
        return (self.folder / f"ended.{rank}").exists()

    def die(self) -> None:
        """End as the out-of-memory killer would."""
        self.fault()
        os.kill(os.getpid(), signal.SIGKILL)

    def watch(self, step: GuardedCapture) -> None:
        """Write down every difference that the agreement of a guard reports."""
        agreement = step.agreement
        if agreement is None or agreement is self._agreement:
            return
        self._agreement = agreement
        report = agreement.report

        def reported(*arguments: Any) -> Divergence:
            divergence = report(*arguments)
            self.events.write(
                "report",
                kind=divergence.kind.name.lower().replace("_", "-"),
                step=divergence.step,
                ranks=divergence.ranks,
                text=divergence.text,
            )
            self._has_reported.set()
            return divergence

        agreement.report = reported  # type: ignore[method-assign, assignment]

    def _await(self, step: int, ranks: Sequence[int], differs: bool) -> None:
        def awaited() -> None:
            if self._agreement is not None:
                self.wait_until(lambda: all(self._came(rank, step) for rank in ranks))
            if differs:
                self.fault()

        self.before[step] = awaited

    def _came(self, rank: int, step: int) -> bool:
        """Whether a rank has published a step and, where it does not vote, decided on it."""
        if self.passed(rank) < step:
            return False
        return self._votes or self.ledger.native.outcome(rank, step) != Outcome.PENDING

    def _published(self) -> int:
        ledger = self.agreement.ledger
        return self.number if ledger is None else ledger.native.step()

    def _choose(
        self, batch: BatchDescriptor, captured: Sequence[BatchDescriptor]
    ) -> BatchDescriptor | None:
        """Be the program's own choice of a graph, as it is without a guard that enforces."""
        return next((graph for graph in captured if str(graph) == self._choice), None)

    def _end_when_it_hangs(self) -> None:
        time.sleep(HANG_SECONDS)
        os._exit(HANG_EXIT_CODE)


def _nothing() -> None:
    pass
