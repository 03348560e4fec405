"""Faults of pace: ranks that run far ahead, and what is announced while ranks run."""

from __future__ import annotations

from functools import partial

from graphguard import BatchDescriptor
from tests.faults.expected import NOTHING, End, Expected, Fault, Side, faults
from tests.faults.job import PLAN, Job
from tests.faults.model import alone

STEPS = 1100
"""More than the ledger has slots for each rank."""

TOGETHER = 100
"""How often the ranks that run ahead wait for each other, in steps. Nothing else would."""


def runs_ahead(job: Job) -> None:
    """Let all ranks but the faulty one run ahead of it. Their graphs hold no collectives."""
    job.prepare(alone, sizes=("4x2",))
    if job.faulty:
        job.before[1] = lambda: job.wait_until(
            lambda: all(job.passed(rank) >= STEPS or job.has_ended(rank) for rank in job.others)
        )
        job.fault()
        job.serve(["target 4x2"] * 4)
    else:
        for step in range(TOGETHER, STEPS, TOGETHER):
            job.before[step] = partial(_wait_for_the_others, job, step - 1)
        job.serve(["target 4x2"] * STEPS)


def _wait_for_the_others(job: Job, step: int) -> None:
    others = [rank for rank in job.others if rank != job.rank]
    job.wait_until(lambda: all(job.passed(rank) >= step or job.has_ended(rank) for rank in others))


def quarantines(job: Job) -> None:
    """Let the faulty rank take a graph out of use as it should, in the middle of steps."""
    job.prepare()
    if job.faulty:
        job.before[9] = lambda: _quarantine(job)
    job.serve(PLAN * 15)


def _quarantine(job: Job) -> None:
    job.fault()
    step = job.guards["target"][1].quarantine(BatchDescriptor.parse("8x2"))
    job.events.write("announced", step=step)


def no_fault(job: Job) -> None:
    """Do nothing wrong."""
    job.fault()
    job.prepare()
    job.serve(PLAN * 4)


def no_fault_with_votes(job: Job) -> None:
    """Do nothing wrong, and vote on every step."""
    job.fault()
    job.prepare(vote_seconds=10.0)
    job.serve(PLAN * 4)


# ---- the faults, and what is none ----------------------------------------------------------------

FAULTS = [
    *faults(
        "pace",
        "observe",
        Expected(Side(End.FINISHED, ("lapped",)), Side(End.FINISHED, also=("peer-gone",))),
        {"1,100 steps behind": runs_ahead},
    ),
    *faults(
        "pace",
        "enforce",
        Expected(Side(End.FINISHED), Side(End.RAISED, (), "RanksDiverged")),
        {"1,100 steps behind": runs_ahead},
    ),
    *faults("pace", "enforce", NOTHING, {"a graph is taken out of use": quarantines}),
]

SOUND = [
    *(Fault("no fault", mode, "none", no_fault, NOTHING) for mode in ("off", "observe", "enforce")),
    Fault("no fault, vote", "enforce", "none", no_fault_with_votes, NOTHING),
]
