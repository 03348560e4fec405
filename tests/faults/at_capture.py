"""Faults in what a rank captures, and in whether it comes to compare it."""

from __future__ import annotations

import torch
import torch.distributed as dist

from graphguard.agreement import members
from tests.faults.expected import (
    GOES_WRONG,
    MISSING,
    RAISES_AT_CAPTURE,
    End,
    Expected,
    Program,
    Side,
    both,
    faults,
)
from tests.faults.job import PLAN, Job
from tests.faults.model import SIZES, WIDTH, Body, Model, drafter, one_size, target

# ---- what the faulty rank captures in place of `target` ------------------------------------------


def one_more(model: Model, tokens: int) -> torch.Tensor:
    rows = target(model, tokens)
    dist.all_reduce(model.root_rows[:1])
    return rows


def other_order(model: Model, tokens: int) -> torch.Tensor:
    return drafter(model, tokens)


def other_dtype(model: Model, tokens: int) -> torch.Tensor:
    rows = model.hidden[: tokens * WIDTH].to(torch.float16)
    dist.all_reduce(rows)
    dist.broadcast(model.root_rows[:tokens], 0)
    return rows.float()


def other_count(model: Model, tokens: int) -> torch.Tensor:
    return target(model, tokens - 1)


def other_root(model: Model, tokens: int) -> torch.Tensor:
    rows = model.hidden[: tokens * WIDTH].clone()
    dist.all_reduce(rows)
    dist.broadcast(model.root_rows[:tokens], 1)
    return rows


def other_reduction(model: Model, tokens: int) -> torch.Tensor:
    rows = model.hidden[: tokens * WIDTH].clone()
    dist.all_reduce(rows, op=dist.ReduceOp.MAX)
    dist.broadcast(model.root_rows[:tokens], 0)
    return rows


def largest(model: Model, tokens: int) -> torch.Tensor:
    """The same of `one_size`, whose calls all pair."""
    rows = model.hidden.clone()
    dist.all_reduce(rows, op=dist.ReduceOp.MAX)
    return rows[: tokens * WIDTH]


# ---- programs ------------------------------------------------------------------------------------


def captures(faulty: Body, usual: Body = target) -> Program:
    """Let the faulty rank capture other calls for its target."""

    def program(job: Job) -> None:
        job.fault()
        job.guard("target", faulty if job.faulty else usual, eager=usual)
        job.guard("drafter", one_size if usual is one_size else drafter)
        job.serve()

    return program


def captures_on_another_communicator(job: Job) -> None:
    """Let the faulty rank reduce over another group of the same ranks."""
    same_ranks = dist.new_group(list(range(job.ranks)))

    def other_group(model: Model, tokens: int) -> torch.Tensor:
        rows = model.hidden[: tokens * WIDTH].clone()
        dist.all_reduce(rows, group=same_ranks)
        dist.broadcast(model.root_rows[:tokens], 0)
        return rows

    captures(other_group)(job)


def captures_sizes(*sizes: str, body: Body = target) -> Program:
    """Let the faulty rank capture these sizes, or in this order."""

    def program(job: Job) -> None:
        job.fault()
        job.prepare(body, sizes=sizes if job.faulty else SIZES)
        job.serve()

    return program


def a_capture_fails(job: Job) -> None:
    """Let the faulty rank run out of memory at the third of its graphs."""
    job.fault()
    job.fails_for = "4x2" if job.faulty else ""
    job.prepare()
    job.serve()


def seals_in_another_order(job: Job) -> None:
    """Let the faulty rank warm up its drafter first."""
    job.fault()
    roles: list[tuple[str, Body]] = [("target", target), ("drafter", drafter)]
    for role, body in reversed(roles) if job.faulty else roles:
        job.guard(role, body)
    job.serve()


def runs_in_another_mode(job: Job) -> None:
    """Let the faulty rank only observe."""
    job.fault()
    if job.faulty:
        job.mode = "observe"
    job.prepare()
    job.serve()


def lacks_a_role(job: Job) -> None:
    """Let the faulty rank have no drafter, and begin to serve."""
    job.fault()
    job.guard("target", target)
    if not job.faulty:
        job.guard("drafter", drafter)
    job.serve([step for step in PLAN if step.startswith("target")])


def names_another_group(job: Job) -> None:
    """Let the faulty rank give its guards another group of the same ranks."""
    job.fault()
    same_ranks = dist.new_group(list(range(job.ranks)))
    job.prepare(group=same_ranks if job.faulty else dist.group.WORLD)
    job.serve()


def runs_another_version(job: Job) -> None:
    """Let the faulty rank say that it runs another version of graphguard. Only that is made up."""
    job.fault()
    if job.faulty:
        vars(members)["__version__"] = "0.0.0"
    job.prepare()
    job.serve()


def never_seals(job: Job) -> None:
    """Let the faulty rank do something else until the others have given up."""
    job.fault()
    if job.faulty:
        job.wait_until(lambda: all(map(job.has_ended, job.others)))
        return
    job.prepare()
    job.serve()


def dies_before_it_seals(job: Job) -> None:
    """Let the faulty rank die between the warm-up of its target and that of its drafter."""
    job.guard("target", target)
    if job.faulty:
        job.die()
    job.guard("drafter", drafter)
    job.serve()


def captures_otherwise_again(job: Job) -> None:
    """Let the faulty rank capture another call, after warm-up, where all capture a new size."""
    job.prepare(sizes=("4x2", "8x2"), on_divergence="recapture")
    job.serve(["target 4x2", "target 8x2"])
    if job.faulty:
        job.guards["target"][0].body = one_more
    job.fault()
    job.serve(["target 16x2", "target 16x2", "target 4x2"])


def a_capture_fails_again(job: Job) -> None:
    """Let the faulty rank run out of memory where all capture a new size after warm-up."""
    job.prepare(sizes=("4x2", "8x2"), on_divergence="recapture")
    job.serve(["target 4x2", "target 8x2"])
    if job.faulty:
        job.guards["target"][0].fails_for = "16x2"
    job.fault()
    job.serve(["target 16x2", "target 16x2", "target 4x2", "target 15x2"])


# ---- the faults ----------------------------------------------------------------------------------

_CALLS = {
    "one collective more at capture": captures(one_more),
    "order of two collectives": captures(other_order),
    "dtype of a collective": captures(other_dtype),
    "count of a collective": captures(other_count),
    "root of a broadcast": captures(other_root),
    "reduction of an all-reduce": captures(other_reduction),
    "communicator of a collective": captures_on_another_communicator,
}
_SETS = {
    "a size captured on one rank only": captures_sizes("1x2", "2x2", "4x2", "8x2", "12x2", "16x2"),
    "a size missing on one rank": captures_sizes("1x2", "2x2", "4x2", "16x2"),
    "another order of captures": captures_sizes("2x2", "1x2", "4x2", "8x2", "16x2"),
    "roles sealed in another order": seals_in_another_order,
    "one collective more at a later capture": captures_otherwise_again,
}
_OBSERVED = {
    "reduction of an all-reduce": captures(largest, one_size),
    "a size missing on one rank": captures_sizes("1x2", "2x2", "4x2", "16x2", body=one_size),
}
_SHORT = {"GRAPHGUARD_AGREE_SECONDS": "1"}


def _before_any_launch(faulty: Side, others: Side) -> Expected:
    return Expected(faulty, others, decidable=True, launches=False)


FAULTS = [
    *faults("capture", "enforce", RAISES_AT_CAPTURE, {**_CALLS, **_SETS}),
    *faults(
        "capture",
        "observe",
        both(Side(End.ANY, ("captures-differ",), also=("differs",)), decidable=True),
        _OBSERVED,
    ),
    *faults(
        "capture",
        "enforce",
        RAISES_AT_CAPTURE,
        {"one collective more at capture, rank 0": captures(one_more)},
        odd=0,
    ),
    *faults(
        "capture",
        "enforce",
        _before_any_launch(
            Side(End.RAISED, (), "CaptureError"), Side(End.RAISED, (), "AgreementError")
        ),
        {"a capture fails on one rank": a_capture_fails},
    ),
    *faults(
        "capture",
        "enforce",
        both(Side(End.FINISHED, log="is not captured: rank 1 of the group failed"), decidable=True),
        {"a later capture fails on one rank": a_capture_fails_again},
    ),
    *faults(
        "capture",
        "enforce",
        Expected(
            Side(End.ANY, ("captures-differ",)),
            Side(End.RAISED, ("captures-differ",), "AgreementError"),
            decidable=True,
        ),
        {"one rank only observes": runs_in_another_mode},
        environment=_SHORT,
    ),
    *faults(
        "capture",
        "enforce",
        both(Side(End.RAISED, (), "LedgerError"), decidable=True, launches=False),
        {"one rank runs another version": runs_another_version},
    ),
    *faults(
        "capture",
        "observe",
        both(Side(End.FINISHED, log="run different versions of graphguard")),
        {"one rank runs another version": runs_another_version},
    ),
    *faults(
        "capture",
        "enforce",
        _before_any_launch(Side(End.FINISHED), MISSING),
        {"a rank never seals": never_seals},
        environment=_SHORT,
    ),
    *faults(
        "capture",
        "enforce",
        _before_any_launch(Side(End.KILLED), MISSING),
        {"a rank dies before it seals": dies_before_it_seals},
        environment=_SHORT,
    ),
    *faults(
        "capture",
        "enforce",
        _before_any_launch(MISSING, MISSING),
        {"one rank names another group": names_another_group},
        environment=_SHORT,
    ),
    *faults(
        "capture",
        "enforce",
        # It has begun to serve, and the others never come.
        Expected(Side(End.ENDED, ("peer-gone",)), MISSING),
        {"a role missing on one rank": lacks_a_role},
        environment=_SHORT,
    ),
]

UNGUARDED = faults("capture", "off", GOES_WRONG, _CALLS)
