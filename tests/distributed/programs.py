"""What the ranks of the distributed tests run. Each function returns what JSON can hold."""

from __future__ import annotations

import os
from typing import Any

import torch
import torch.distributed as dist

from graphguard import (
    BatchDescriptor,
    Captured,
    CaptureError,
    GuardMismatch,
    Session,
    default_session,
    guard,
    record,
    write_manifest,
)
from graphguard.graphs.emulated import EmulatedGraph, capture
from graphguard.recorders.c10d import CollectiveRecorder
from tests.distributed.collectives import EveryCollective

outlived: list[EmulatedGraph] = []


def every_collective() -> dict[str, Any]:
    """Record an eager run and an emulated capture, and compare replays with eager runs."""
    program = EveryCollective()
    program.fill(0)
    with CollectiveRecorder() as eager:
        program.run()
    graph = EmulatedGraph()
    with CollectiveRecorder() as captured, capture(graph):
        outputs = program.run()
    equal = []
    for seed in (1, 2):
        program.fill(seed)
        graph.replay()
        expected = program.run()
        equal.append(all(map(torch.equal, outputs, expected)))
    return {
        "eager": [str(call) for call in eager.calls],
        "captured": [str(call) for call in captured.calls],
        "failures": [str(r.failure) for r in (eager, captured) if r.failure],
        "equal": equal,
        "splits": [
            [call.send_splits, call.recv_splits] for call in captured.calls if call.send_splits
        ],
    }


def manifest_of_every_collective() -> str:
    """Write the manifest of a graph that holds every collective."""
    program = EveryCollective()
    graph = EmulatedGraph()
    with record("target", BatchDescriptor.of(16, 2)) as recording:
        with capture(graph):
            outputs = program.run()
        recording.captured(graph, inputs={"x": program.x}, outputs=outputs)
    return str(write_manifest(os.environ["MANIFESTS"]))


def one_rank_reduces_more() -> str:
    """Write manifests in which rank 1 captured one all-reduce too many."""
    x = torch.zeros(8)
    graph = EmulatedGraph()
    with record("target", BatchDescriptor.of(4, 2)) as recording:
        with capture(graph):
            for _ in range(3 if dist.get_rank() == 1 else 2):
                dist.all_reduce(x)
        recording.captured(graph)
    return str(write_manifest(os.environ["MANIFESTS"]))


def guarded_steps() -> dict[str, Any]:
    """Serve exact, padded and unfitting steps and compare them with eager runs."""
    hidden = torch.zeros(32, 4)

    def forward(batch: BatchDescriptor) -> torch.Tensor:
        rows = hidden[: batch.num_tokens] * (dist.get_rank() + 1)
        dist.all_reduce(rows)
        return rows

    @guard("target", eager=forward, mode="enforce", on_divergence="recapture", unpad="tokens")
    def step(batch: BatchDescriptor) -> Captured:
        graph = EmulatedGraph()
        with capture(graph):
            out = forward(batch)
        return Captured(graph, inputs={"hidden": hidden}, outputs=out)

    step.warm_up([BatchDescriptor.of(n, 2) for n in (1, 2, 4, 8, 16)])
    results = []
    for number, batch in enumerate(map(BatchDescriptor.parse, ("16x2", "15x2", "15x1", "15x1"))):
        hidden.copy_(torch.full((32, 4), float(number + 1)))
        out = step(batch)
        results.append([str(step.last_verdict), torch.equal(out, forward(batch))])
    return {"steps": results, "batches": [str(batch) for batch in step.batches]}


def moved_tensor_on_one_rank() -> list[str]:
    """Move a static tensor on rank 1 only, and ask for an eager run where it moved."""
    hidden = torch.zeros(8)

    def forward(batch: BatchDescriptor) -> torch.Tensor:
        rows = hidden[: batch.num_tokens] + 1
        dist.all_reduce(rows)
        return rows

    @guard(
        "target",
        eager=forward,
        mode="enforce",
        on_divergence={"input_address": "eager"},
        check_inputs="address",
        session=Session(),
    )
    def step(batch: BatchDescriptor) -> Captured:
        graph = EmulatedGraph()
        with capture(graph):
            out = forward(batch)
        return Captured(graph, inputs={"hidden": hidden}, outputs=out)

    step.warm_up([BatchDescriptor.of(4, 2)])
    seen = []
    if dist.get_rank() == 1:
        hidden.data = torch.zeros(8)
        try:
            step(BatchDescriptor.of(4, 2))
        except GuardMismatch as error:
            seen.append(str(error))
    dist.barrier()
    return seen


def graph_that_outlives_its_group() -> str:
    """Keep a graph until the process ends, as programs do, and replay it after its group."""
    x = torch.ones(2)
    graph = EmulatedGraph()
    with capture(graph):
        dist.all_reduce(x)
    graph.replay()
    assert torch.equal(x, torch.full((2,), float(dist.get_world_size())))
    outlived.append(graph)
    dist.destroy_process_group()
    try:
        graph.replay()
    except CaptureError as error:
        return str(error)
    return "replayed"


def group_names() -> list[str]:
    """Record one call in each of two groups of the same ranks and one of other ranks."""
    ranks = list(range(dist.get_world_size()))
    same, other = dist.new_group(ranks), dist.new_group([0, *ranks[2:]])
    x = torch.zeros(2)
    with CollectiveRecorder() as recorder:
        dist.all_reduce(x)
        dist.all_reduce(x, group=same)
        if dist.get_rank() != 1:
            dist.all_reduce(x, group=other)
    assert default_session.signatures == []
    return [call.group for call in recorder.calls]
