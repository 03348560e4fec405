"""What the ranks run that only call ``graphguard.install()``. Each returns what JSON can hold."""

from __future__ import annotations

import os
import time
from collections.abc import Callable
from typing import Any

import torch
import torch.distributed as dist

import graphguard
from graphguard import AgreementError, RanksDiverged, Session
from graphguard.graphs.emulated import EmulatedGraph, capture


def captured(*sizes: int) -> list[EmulatedGraph]:
    """Capture a graph with one all-reduce for each size, as a program would on its own."""
    kept = []
    for size in sizes:
        graph, x = EmulatedGraph(), torch.zeros(size)
        with capture(graph):
            dist.all_reduce(x)
        kept.append(graph)
    return kept


def same_launches() -> dict[str, Any]:
    """Launch the same on every rank, a graph that was captured after the agreement included."""
    installation = graphguard.install(os.environ["MODE"], Session())
    graphs = captured(8, 16)
    outcome = installation.agree(dist.group.WORLD)
    assert outcome is not None
    for graph in (*graphs, *captured(8), graphs[0]):
        graph.replay()
    (call,) = installation.signatures[1].collectives
    steps = installation._program.replays.steps
    assert steps is not None
    return {
        "agreed": outcome.agreed,
        "step": steps.step,
        "call": str(call),
        "divergences": len(steps.agreement.divergences),
    }


def another_graph_on_the_last_rank() -> dict[str, Any]:
    """Launch another graph on the last rank, whose all-reduce has the same size.

    In enforce the last rank comes late, so that it is the one that must not launch.
    """
    mode = os.environ["MODE"]
    installation = graphguard.install(mode, Session())
    graphs = captured(8, 8)
    installation.agree(dist.group.WORLD)
    last = dist.get_rank() == dist.get_world_size() - 1
    graphs[0].replay()
    steps = installation._program.replays.steps
    assert steps is not None
    ledger = steps.agreement.ledger
    assert ledger is not None
    if last:
        while ledger.native.passed(0) < 2:
            time.sleep(0.001)
    try:
        if mode == "enforce" and not last:
            # What a launch publishes, without one that would wait for the last rank.
            watch = installation._watch(graphs[0])
            assert watch is not None
            watch.replay_begins(graphs[0])
            watch.replay_ended(graphs[0])
        else:
            graphs[1 if last else 0].replay()
    except RanksDiverged as error:
        told = f"{error.step} {list(error.ranks)}: {error.message}"
    else:
        told = ""
    while mode == "enforce" and not last and steps.agreement.stopped_by is None:
        time.sleep(0.001)
    divergences = [str(divergence.kind) for divergence in steps.agreement.divergences]
    steps.agreement.told()
    return {"told": told, "divergences": divergences}


def captures_that_differ() -> dict[str, Any]:
    """Capture other sizes on the last rank."""
    installation = graphguard.install("enforce", Session())
    last = dist.get_rank() == dist.get_world_size() - 1
    (graph,) = captured(16 if last else 8)

    def error_of(call: Callable[[], object]) -> str:
        try:
            call()
        except AgreementError as error:
            return error.message
        return ""

    agree = error_of(lambda: installation.agree(dist.group.WORLD))
    return {"errors": [agree, error_of(graph.replay)]}
