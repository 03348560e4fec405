"""What the ranks of the tests of stalls run: a guarded step, and what one of them does in it."""

from __future__ import annotations

import ctypes
import os
import time
from collections.abc import Callable

import torch
import torch.distributed as dist

import graphguard
from graphguard import BatchDescriptor, Captured, Session
from graphguard.graphs.emulated import EmulatedGraph, capture

FAULTY = 1
AT = 4
"""The step in which it happens."""

BATCH = BatchDescriptor.of(4, 2)


def guarded_steps() -> int:
    """Serve steps; in one of them rank 1 does what STALL_FAULT says, or between two of them."""
    fault = FAULTS[os.environ["STALL_FAULT"]]
    steps = int(os.environ.get("STALL_STEPS", "6"))
    hidden = torch.ones(32, 4)
    here = [0]

    def eager(batch: BatchDescriptor) -> torch.Tensor:
        rows = hidden[: batch.num_tokens] * 2
        faulty = here[0] == AT and (dist.get_rank() == FAULTY or fault is receive_from_each_other)
        if faulty and not os.environ.get("STALL_BETWEEN"):
            fault()
        if not (faulty and fault is skip):
            dist.all_reduce(rows)
        return rows

    @graphguard.guard(
        "target", eager=eager, mode="observe", group=dist.group.WORLD, session=Session()
    )
    def step(batch: BatchDescriptor) -> Captured:
        graph = EmulatedGraph()
        with capture(graph):
            rows = hidden[: batch.num_tokens] * 2
            dist.all_reduce(rows)
        return Captured(graph, inputs={"hidden": hidden}, outputs=rows)

    step.warm_up([BATCH])
    batch = BATCH if os.environ.get("STALL_REPLAYS") else BatchDescriptor.of(5, 3)
    for number in range(1, steps + 1):
        here[0] = number
        if number == AT and dist.get_rank() == FAULTY and os.environ.get("STALL_BETWEEN"):
            fault()
        faulty = number == AT and dist.get_rank() == FAULTY
        try:
            step(batch)
        except (ValueError, RuntimeError):
            # As a device would go on waiting whose peer is gone.
            time.sleep(_seconds())
        if faulty and fault is skip:
            time.sleep(_seconds())
    return steps


def nothing() -> None:
    """Be healthy."""


def skip() -> None:
    """Leave out the collective, and be idle for long."""


def spin() -> None:
    """Loop in Python."""
    until = time.monotonic() + _seconds()
    while time.monotonic() < until:
        pass


def spin_in_c() -> None:
    """Loop in C, with the GIL held."""
    library = ctypes.PyDLL(os.environ["STALL_LIBRARY"])
    library.spin(ctypes.c_double(_seconds()))


def sleep_once() -> None:
    """Sleep for a time that is set."""
    time.sleep(_seconds())


def poll() -> None:
    """Wait in short sleeps for what never comes."""
    until = time.monotonic() + _seconds()
    while time.monotonic() < until:
        time.sleep(0.02)


def say_slow() -> None:
    """Compute for long, and say so."""
    with graphguard.slow("tuning", 60):
        spin()


def receive_from_each_other() -> None:
    """Wait for the other rank, as it does for this one."""
    dist.recv(torch.zeros(1), src=1 - dist.get_rank())


def fail() -> None:
    """Note an error, as an engine does that survives it, and go on without the step."""
    from graphguard.blackbox.writer import process_box

    box = process_box()
    assert box is not None
    box.note("step failed: ValueError: a test")
    raise ValueError("a test")


def _seconds() -> float:
    return float(os.environ.get("STALL_FOR", "600"))


FAULTS: dict[str, Callable[[], None]] = {
    "nothing": nothing,
    "skip": skip,
    "spin": spin,
    "spin_in_c": spin_in_c,
    "sleep_once": sleep_once,
    "poll": poll,
    "say_slow": say_slow,
    "fail": fail,
    "receive_from_each_other": receive_from_each_other,
}
