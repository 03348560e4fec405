"""Faults in what a rank captures, and in whether it comes to compare it."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
import torch.distributed as dist

from tests.faults.job import Job
from tests.faults.model import SIZES, WIDTH, Body, Model, drafter, one_size, target

Program = Callable[[Job], None]

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
    settings: dict[str, Any] = {"mode": "observe"} if job.faulty else {}
    job.prepare(**settings)
    job.serve()


def never_seals(job: Job) -> None:
    """Let the faulty rank do something else until the others have given up."""
    job.fault()
    if job.faulty:
        job.wait_until(lambda: all(job.has_ended(r) for r in range(job.ranks) if not r == job.rank))
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
