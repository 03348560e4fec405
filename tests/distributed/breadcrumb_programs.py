"""What the ranks of the tests of breadcrumbs run."""

from __future__ import annotations

import os
import time
from pathlib import Path

import torch
import torch.distributed as dist

from graphguard import BatchDescriptor, install, record
from graphguard.blackbox.writer import process_box
from graphguard.graphs.emulated import EmulatedGraph, capture
from graphguard.watch import watchdog

CALLS = 5
STUCK_AFTER = 2
SECONDS = 60.0

outlived: list[EmulatedGraph] = []


def a_stall_in_a_replay() -> bool:
    """Rank 1 replays a graph that lacks the last calls: rank 0 waits inside of its replay.

    The test looks at the marks from its own process, and then lets rank 1 make those calls.
    """
    process_box()
    _stand(_captured(_calls()))
    return True


def a_stall_that_is_examined() -> bool:
    """The same in a program that is recorded without its help, with a watchdog."""
    install("observe")
    watchdog.start()
    graph = EmulatedGraph()
    _capture_into(graph, _calls())
    _stand(graph)
    return True


def _calls() -> int:
    return CALLS if dist.get_rank() == 0 else STUCK_AFTER


def _stand(graph: EmulatedGraph) -> None:
    graph.replay()
    if dist.get_rank() == 0:
        return
    told_to_go_on = Path(os.environ["GO_ON"])
    deadline = time.monotonic() + SECONDS
    while not told_to_go_on.exists() and time.monotonic() < deadline:
        time.sleep(0.02)
    for number in range(STUCK_AFTER, CALLS):
        dist.all_reduce(torch.ones(16 * (number + 1)))


def _captured(calls: int) -> EmulatedGraph:
    graph = EmulatedGraph()
    with record("target", BatchDescriptor.of(4, 2)) as recording:
        _capture_into(graph, calls)
        recording.captured(graph)
    outlived.append(graph)
    return graph


def _capture_into(graph: EmulatedGraph, calls: int) -> None:
    tensors = [torch.ones(16 * (number + 1)) for number in range(calls)]
    with capture(graph):
        for tensor in tensors:
            dist.all_reduce(tensor)
