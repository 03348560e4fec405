"""Faults in what a rank launches: its plan of steps is not that of the others."""

from __future__ import annotations

from typing import Any

import torch

from graphguard import BatchDescriptor
from tests.faults.expected import (
    ADOPTS,
    ARE_ADOPTED,
    GOES_WRONG,
    OBSERVED,
    REFUSED_FIRST,
    REFUSES_LAST,
    End,
    Expected,
    Program,
    Side,
    both,
    faults,
)
from tests.faults.job import AT, PLAN, Job
from tests.faults.model import MAX_TOKENS, WIDTH, Body, one_size

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


def publishes_a_twin(*, key: bool, first: bool = False) -> Program:
    """Let the faulty rank publish what agrees with the others' launch in the first 64 bits.

    Args:
        key: Whether all of the digest agrees, and only the family of graphs is another.
        first: Whether that rank comes first.
    """

    def program(job: Job) -> None:
        job.prepare()
        job.come_first() if first else job.come_last()
        _, guarded = job.guards["drafter"]
        if job.faulty:
            group = guarded._group
            assert group is not None
            assert group.steps is not None
            graph = guarded.batches.index(BatchDescriptor.parse("8x2"))
            high, low = group.steps._digest(graph)
            family = group.steps._key ^ (1 if key else 0)
            group.steps._replays[graph] = job.ledger.native.add_launch(
                0, high, low ^ (0 if key else 1), family, group.steps.ring, *group.steps._names
            )
        job.serve()

    return program


# ---- the faults ----------------------------------------------------------------------------------

_OBSERVED = {
    "wrong graph": serves(replaced("drafter 8x2 > 16x2"), body=one_size),
    "wrong graph, first to come": serves(replaced("drafter 8x2 > 16x2"), body=one_size, first=True),
    "eager against graph": serves(replaced("drafter 8x2 > eager"), body=one_size),
    "graph against eager": serves(
        replaced("drafter 8x2 > 8x2"), usual=replaced("drafter 8x2 > eager"), body=one_size
    ),
    "drafter skipped": serves(SKIPPED, body=one_size),
    "drafter run twice": serves(TWICE, body=one_size, at=AT + 1),
    "roles swapped": serves(SWAPPED, body=one_size),
    "a round ahead": serves(AHEAD, body=one_size, at=AT - 1),
    "a round repeated": serves(REPEATED, body=one_size, at=AT + 1),
    "prefill against decode": serves(replaced("drafter 8x2:prefill > eager"), body=one_size),
}
_REFUSED = {
    "a batch that does not fit": serves(replaced("drafter 12x2")),
    "drafter skipped": serves(SKIPPED),
    "drafter run twice": serves(TWICE, at=AT + 1),
    "roles swapped": serves(SWAPPED),
    "a round ahead": serves(AHEAD, at=AT - 1),
    "prefill against decode": serves(replaced("drafter 8x2:prefill")),
    "a tensor moved": moves_a_tensor(on_divergence={"input_address": "eager"}),
    "a tensor moved, policy raise": moves_a_tensor(),
}
_REFUSED_FIRST = {
    "wrong graph, first to come": serves(replaced("drafter 4x2"), first=True),
    "drafter skipped, first to come": serves(SKIPPED, first=True),
    "prefill against decode, first to come": serves(replaced("drafter 8x2:prefill"), first=True),
}
_ADOPTED = {
    "wrong graph": serves(replaced("drafter 4x2")),
    "eager against graph": knows_a_quarantine_alone(),
}
_ARE_ADOPTED = {
    "eager against graph, first to come": knows_a_quarantine_alone(first=True),
    "a tensor moved, first to come": moves_a_tensor(
        first=True, on_divergence={"input_address": "eager"}
    ),
    "a tensor moved, vote": moves_a_tensor(
        vote_seconds=10.0, on_divergence={"input_address": "eager"}
    ),
}
_ALL_RAISE = {
    "a tensor moved, policy raise, first to come": moves_a_tensor(first=True),
    "a tensor moved, policy raise, vote": moves_a_tensor(vote_seconds=10.0),
}

# A record of a black box has room for the first half of a digest.
_TWINS = {
    "digests equal in their first half": publishes_a_twin(key=False),
    "digests equal, families not": publishes_a_twin(key=True),
}
_TWINS_FIRST = {
    "digests equal in their first half, first to come": publishes_a_twin(key=False, first=True),
    "digests equal, families not, first to come": publishes_a_twin(key=True, first=True),
}

FAULTS = [
    *faults("launch", "observe", OBSERVED, _TWINS),
    *faults("launch", "enforce", ADOPTS, _TWINS),
    *faults("launch", "enforce", REFUSED_FIRST, _TWINS_FIRST),
    *faults("launch", "observe", OBSERVED, _OBSERVED, in_boxes=True),
    *faults("launch", "enforce", REFUSES_LAST, _REFUSED, in_boxes=True),
    *faults("launch", "enforce", REFUSED_FIRST, _REFUSED_FIRST, in_boxes=True),
    *faults("launch", "enforce", ADOPTS, _ADOPTED, in_boxes=True),
    *faults("launch", "enforce", ARE_ADOPTED, _ARE_ADOPTED, in_boxes=True),
    *faults(
        "launch",
        "enforce",
        REFUSES_LAST,
        {"drafter skipped, rank 0": serves(SKIPPED)},
        odd=0,
        in_boxes=True,
    ),
    *faults(
        "launch",
        "enforce",
        Expected(
            Side(End.RAISED, ("adopted", "refused"), "RanksDiverged"),
            Side(End.ENDED, ("peer-refused",)),
            decidable=True,
        ),
        {"a round repeated": serves(REPEATED, at=AT + 1)},
        in_boxes=True,
    ),
    *faults(
        "launch",
        "enforce",
        Expected(
            Side(End.RAISED, (), "GuardMismatch"),
            Side(End.RAISED, ("adopted",), "GuardMismatch"),
            decidable=True,
            launches=False,
        ),
        _ALL_RAISE,
        in_boxes=True,
    ),
    *faults(
        "launch",
        "enforce",
        both(
            Side(End.RAISED, ("refused", "peer-refused"), "RanksDiverged"),
            decidable=True,
            launches=False,
        ),
        {"drafter skipped, vote": serves(SKIPPED, vote_seconds=10.0)},
        in_boxes=True,
    ),
]

UNGUARDED = faults(
    "launch",
    "off",
    GOES_WRONG,
    {
        "wrong graph": serves(replaced("drafter 8x2 > 16x2")),
        "eager against graph": serves(
            replaced("drafter 7x2 > eager"), usual=replaced("drafter 7x2 > 8x2")
        ),
        "drafter skipped": serves(SKIPPED),
        "drafter run twice": serves(TWICE),
        "roles swapped": serves(SWAPPED),
    },
)
