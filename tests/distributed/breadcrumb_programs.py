"""What the ranks of the tests of breadcrumbs run."""

from __future__ import annotations

import os
import time
from pathlib import Path

import torch
import torch.distributed as dist

from graphguard import BatchDescriptor, record
from graphguard.blackbox.writer import process_box
from graphguard.breadcrumbs.process import process_breadcrumbs
from graphguard.graphs.emulated import EmulatedGraph, capture
from graphguard.watch.breadcrumbs import read_breadcrumbs

CALLS = 5
STUCK_AFTER = 2
SECONDS = 60.0

outlived: list[EmulatedGraph] = []


def replays_that_end() -> list[str]:
    """Replay three times with marks, and say how far that is after each."""
    graph = _captured(CALLS)
    crumbs = process_breadcrumbs()
    assert crumbs is not None
    said = [str(read_breadcrumbs(crumbs.path)[0])]
    for _ in range(3):
        graph.replay()
        said.append(str(read_breadcrumbs(crumbs.path)[0]))
    return said


def a_stall_in_a_replay() -> bool:
    """Rank 1 replays a graph that lacks the last calls: rank 0 waits inside of its replay.

    The test looks at the marks from its own process, and then lets rank 1 make those calls.
    """
    told_to_go_on = Path(os.environ["GO_ON"])
    process_box()
    waits = dist.get_rank() == 0
    graph = _captured(CALLS if waits else STUCK_AFTER)
    graph.replay()
    if not waits:
        deadline = time.monotonic() + SECONDS
        while not told_to_go_on.exists() and time.monotonic() < deadline:
            time.sleep(0.02)
        for number in range(STUCK_AFTER, CALLS):
            dist.all_reduce(torch.ones(16 * (number + 1)))
    return True


def _captured(calls: int) -> EmulatedGraph:
    tensors = [torch.ones(16 * (number + 1)) for number in range(calls)]
    graph = EmulatedGraph()
    with record("target", BatchDescriptor.of(4, 2)) as recording:
        with capture(graph):
            for tensor in tensors:
                dist.all_reduce(tensor)
        recording.captured(graph)
    outlived.append(graph)
    return graph
