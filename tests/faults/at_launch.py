"""Faults in what a rank launches: its plan of steps is not that of the others."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch

from graphguard import BatchDescriptor
from tests.faults.job import AT, PLAN, Job
from tests.faults.model import MAX_TOKENS, WIDTH, Body

Program = Callable[[Job], None]
Plan = tuple[str, ...]

# ---- plans of the faulty rank --------------------------------------------------------------------


def replaced(step: str, place: int = AT) -> Plan:
    """Return the plan with another step in a place."""
    return (*PLAN[: place - 1], step, *PLAN[place:])


SKIPPED = (*PLAN[: AT - 1], *PLAN[AT:])
TWICE = (*PLAN[:AT], *PLAN[AT - 1 :])  # differs in the step after AT
SWAPPED = (*PLAN[: AT - 1], PLAN[AT], PLAN[AT - 1], *PLAN[AT + 1 :])
AHEAD = (*PLAN[: AT - 2], *PLAN[AT:])  # differs in the step before AT
REPEATED = (*PLAN[:AT], *PLAN[AT - 2 :])  # differs in the step after AT

# ---- programs ------------------------------------------------------------------------------------


def serves(
    plan: Plan,
    *,
    usual: Plan = PLAN,
    first: bool = False,
    at: int = AT,
    body: Body | None = None,
    **settings: Any,
) -> Program:
    """Let the faulty rank serve another plan, and come to the step that differs first or last."""

    def program(job: Job) -> None:
        job.prepare(body, **settings)
        if at:
            job.come_first(at) if first else job.come_last(at)
        job.serve(plan if job.faulty else usual)

    return program


def moves_a_tensor(*, first: bool = False, **settings: Any) -> Program:
    """Let the faulty rank move a static tensor of its target before the third step."""

    def program(job: Job) -> None:
        job.prepare(check_inputs="address", **settings)
        at = AT - 1
        if "vote_seconds" not in settings:
            job.come_first(at) if first else job.come_last(at)
        arrive = job.before.get(at)

        def moved() -> None:
            if arrive is not None:
                arrive()
            if job.faulty:
                job.fault()
                hidden = job.guards["target"][0].hidden
                hidden.data = torch.full((MAX_TOKENS * WIDTH,), float(job.rank + 1))

        job.before[at] = moved
        job.serve(PLAN[:AT])

    return program


def knows_a_quarantine_alone(*, first: bool = False) -> Program:
    """Let the faulty rank take a graph out of use without a word to the others."""

    def program(job: Job) -> None:
        job.prepare()
        job.come_first() if first else job.come_last()
        if job.faulty:
            _, guarded = job.guards["drafter"]
            group = guarded._group
            assert group is not None
            group.quarantined.add(guarded.batches.index(BatchDescriptor.parse("8x2")))
        job.serve()

    return program


def publishes_a_twin(*, key: bool) -> Program:
    """Let the faulty rank publish what agrees with the others' launch in the first 64 bits.

    Args:
        key: Whether all of the digest agrees, and only the family of graphs is another.
    """

    def program(job: Job) -> None:
        job.prepare()
        job.come_last()
        _, guarded = job.guards["drafter"]
        if job.faulty:
            group = guarded._group
            assert group is not None
            assert group.steps is not None
            graph = guarded.batches.index(BatchDescriptor.parse("8x2"))
            high, low = group.steps._digest(graph)
            family = group.steps._key ^ (1 if key else 0)
            group.steps._replays[graph] = job.ledger.native.add_launch(
                0, high, low ^ (0 if key else 1), family, None, 0, 0
            )
        job.serve()

    return program
