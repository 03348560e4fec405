"""What the ranks of the tests of agreed steps run. Each function returns what JSON can hold."""

from __future__ import annotations

import json
import os
import time
from pathlib import Path
from typing import Any

import torch
import torch.distributed as dist

from graphguard import BatchDescriptor, Captured, GuardedCapture, RanksDiverged, Session, guard
from graphguard.agreement import members
from graphguard.graphs.emulated import EmulatedGraph, capture

MAX_TOKENS = 64


class Step:
    """A step with one all-reduce of a fixed size, so that any two launches would pair."""

    def __init__(self) -> None:
        self.hidden = torch.zeros(MAX_TOKENS)
        self.fails_for: BatchDescriptor | None = None

    def forward(self, batch: BatchDescriptor) -> torch.Tensor:
        rows = self.hidden.clone()
        dist.all_reduce(rows)
        return rows[: batch.num_tokens]

    def capture(self, batch: BatchDescriptor) -> Captured:
        if batch == self.fails_for:
            raise RuntimeError("out of memory")
        graph = EmulatedGraph()
        with capture(graph):
            out = self.forward(batch)
        return Captured(graph, inputs={"hidden": self.hidden}, outputs=out)

    def guarded(self, role: str = "target", *sizes: str, **settings: Any) -> GuardedCapture:
        settings.setdefault("mode", "enforce")
        settings.setdefault("group", dist.group.WORLD)
        step = guard(role, eager=self.forward, session=Session(), **settings)(self.capture)
        step.warm_up(map(BatchDescriptor.parse, sizes or ("1x2", "2x2", "4x2", "8x2", "16x2")))
        return step


def run(step: GuardedCapture, *batches: str) -> list[str]:
    """Run steps and return their verdicts."""
    verdicts = []
    for batch in batches:
        step(BatchDescriptor.parse(batch))
        verdicts.append(str(step.last_verdict))
    return verdicts


def equal_steps() -> list[str]:
    """Serve steps that every rank decides alike."""
    return run(Step().guarded(), "16x2", "15x2", "15x1", "3x2")


def moved_on_last_rank() -> dict[str, Any]:
    """Move a static tensor on the last rank, which then comes first or last to the step."""
    step = Step()
    guarded = step.guarded(on_divergence={"input_address": "eager"}, check_inputs="address")
    verdicts = run(guarded, "4x2")
    last = dist.get_rank() == dist.get_world_size() - 1
    if last:
        step.hidden.data = torch.zeros(MAX_TOKENS)
    else:
        # The others come when the last rank has decided.
        wait_for_step(guarded, dist.get_world_size() - 1, 2)
    verdicts += run(guarded, "4x2")
    agreement = guarded.agreement
    assert agreement is not None
    return {
        "verdicts": verdicts,
        "divergences": [[str(d.kind), d.step, list(d.ranks)] for d in agreement.divergences],
    }


def wait_for_step(guarded: GuardedCapture, place: int, step: int) -> None:
    """Wait until another rank has published a step."""
    assert guarded.agreement is not None
    ledger = guarded.agreement.ledger
    assert ledger is not None
    while ledger.native.passed(place) < step:
        pass


def quarantined_by_one_rank() -> dict[str, Any]:
    """Let rank 0 take a graph out of use, and run on beyond the step from which that holds."""
    guarded = Step().guarded()
    run(guarded, "4x2")
    step = guarded.quarantine(BatchDescriptor.parse("4x2")) if dist.get_rank() == 0 else None
    dist.barrier()
    verdicts = run(guarded, *["4x2"] * 100)
    return {"announced": step, "verdicts": verdicts}


def captured_again_by_all() -> dict[str, Any]:
    """Move a static tensor on rank 0, whose graph is captured again by all at one step."""
    step = Step()
    guarded = step.guarded(
        "target",
        "4x2",
        on_divergence={"input_address": "recapture"},
        check_inputs="address",
    )
    if dist.get_rank() == 0:
        step.hidden.data = torch.zeros(MAX_TOKENS)
    verdicts = []
    for number in range(1, 101):
        # Until then rank 0 comes first, and the others do what it can.
        if dist.get_rank() != 0 and number < 64:
            wait_for_step(guarded, 0, number)
        verdicts += run(guarded, "4x2")
    return {"verdicts": verdicts, "graphs": len(guarded.batches)}


def capture_that_fails_on_one_rank() -> dict[str, Any]:
    """Capture a new size after warm-up, which fails on rank 1."""
    step = Step()
    guarded = step.guarded("target", "4x2", on_divergence="recapture")
    if dist.get_rank() == 1:
        step.fails_for = BatchDescriptor.parse("8x2")
    verdicts = run(guarded, "8x2", "8x2", "6x2", "4x2")
    return {"verdicts": verdicts, "batches": [str(batch) for batch in guarded.batches]}


def out_of_memory_on_one_rank() -> dict[str, Any]:
    """Let rank 1 run out of its limit for captures, which ends them on all ranks alike."""
    step = Step()
    guarded = step.guarded("target", "1x2", on_divergence="recapture")
    if dist.get_rank() == 1:
        guarded._recaptures.over_memory = lambda: "over"  # type: ignore[method-assign]
    verdicts = run(guarded, "2x2", *["1x2"] * 100, "3x2")
    return {"verdicts": [verdicts[0], verdicts[-1]], "graphs": len(guarded.batches)}


def voted() -> dict[str, Any]:
    """Move a static tensor on rank 0 only, and vote on each step."""
    step = Step()
    guarded = step.guarded(
        on_divergence={"input_address": "eager"}, check_inputs="address", vote_seconds=20.0
    )
    verdicts = run(guarded, "4x2")
    if dist.get_rank() == 0:
        step.hidden.data = torch.zeros(MAX_TOKENS)
    verdicts += run(guarded, "4x2", "15x1")
    return {"verdicts": verdicts}


def two_groups() -> dict[str, Any]:
    """Guard one role with all ranks, and another with the even ranks only."""
    even = list(range(0, dist.get_world_size(), 2))
    group = dist.new_group(even)
    target = Step().guarded("target", "4x2", "8x2")
    verdicts = run(target, "4x2")
    names = [target.agreement.name if target.agreement else ""]
    if dist.get_rank() in even:
        drafter = Step()
        drafter.forward = lambda batch: _reduced(drafter, batch, group)  # type: ignore[method-assign]
        guarded = drafter.guarded("drafter", "4x2", group=group)
        verdicts += run(guarded, "4x2", "3x2")
        names.append(guarded.agreement.name if guarded.agreement else "")
    verdicts += run(target, "7x2")
    return {"verdicts": verdicts, "groups": names}


def _reduced(step: Step, batch: BatchDescriptor, group: dist.ProcessGroup) -> torch.Tensor:
    rows = step.hidden.clone()
    dist.all_reduce(rows, group=group)
    return rows[: batch.num_tokens]


class Silent(Step):
    """A step without collectives, which a rank can run alone."""

    def forward(self, batch: BatchDescriptor) -> torch.Tensor:
        return self.hidden[: batch.num_tokens] + 1


def refused() -> dict[str, Any]:
    """Let rank 1 skip the drafter, where rank 0 has launched it."""
    target, drafter = Silent().guarded("target", "4x2"), Silent().guarded("drafter", "4x2")
    run(target, "4x2")
    run(drafter, "4x2")
    run(target, "4x2")
    if dist.get_rank() == 1:
        # In the order of the ledger: the drafter of rank 0 is the fourth launch.
        wait_for_step(target, 0, 4)
    message = ""
    try:
        run(drafter if dist.get_rank() == 0 else target, "4x2")
        dist.barrier()
        run(target, "4x2")
    except RanksDiverged as error:
        message = f"{error.step} {list(error.ranks)}: {error.message}"
        if dist.get_rank() == 1:
            dist.barrier()
    return {"message": message}


def nodes_that_differ() -> dict[str, Any]:
    """Take each rank for a node, and let rank 1 run another batch in one step.

    All ranks are on this machine, so that they are several nodes is what is made up here: the name
    of their shared memory.
    """
    members._memory = lambda: f"node {dist.get_rank()}"
    step = Silent().guarded("target", "16x2", mode=os.environ["MODE"])
    run(step, *["16x2"] * 50)
    run(step, "15x1" if dist.get_rank() == 1 else "16x2")
    agreement = step.agreement
    assert agreement is not None
    error = ""
    deadline = time.monotonic() + 20.0
    try:
        while not agreement.divergences and time.monotonic() < deadline:
            run(step, "16x2")
            time.sleep(0.01)
        run(step, "16x2")
    except RanksDiverged as refused:
        error = refused.message
    dist.barrier()
    return {"divergences": [[str(d.kind), d.step] for d in agreement.divergences], "error": error}


def peer_that_ends() -> dict[str, Any]:
    """Let rank 1 end without a word, which the other one learns before its next step."""
    step = Silent().guarded("target", "16x2")
    run(step, "16x2")
    dist.barrier()
    if dist.get_rank() == 1:
        os._exit(0)
    agreement = step.agreement
    assert agreement is not None
    deadline = time.monotonic() + 20.0
    while agreement.stopped_by is None and time.monotonic() < deadline:
        time.sleep(0.01)
    try:
        run(step, "16x2")
    except RanksDiverged as error:
        told = {"step": error.step, "ranks": list(error.ranks), "message": error.message}
        Path(os.environ["TOLD"]).write_text(json.dumps(told))
    # The group cannot be taken down without the other rank.
    os._exit(0)
