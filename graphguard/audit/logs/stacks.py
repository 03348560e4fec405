"""Where main threads were, as far as stacks of py-spy stand in the log.

A stack says where the host waits. A thread that waits for the device in a launch or a
synchronisation is often at the *next* launch after the one that hangs.
"""

from __future__ import annotations

import re
from collections.abc import Sequence

from graphguard.audit.logs.collecting import Collected, quote
from graphguard.audit.logs.lines import Line
from graphguard.audit.logs.model import Evidence
from graphguard.audit.logs.ranks import RanksRead

_DEVICE = re.compile(
    r"cu(?:Stream|Event|Ctx)Synchronize|cuda(?:Stream|Event|Device)Synchronize|cuLaunchKernel|"
    r"cu(?:da)?GraphLaunch|cuMemcpy|cudaMemcpy|libcuda\.so|synchronize \(torch|replay \(torch|"
    r"nccl\w+ \(",
    re.IGNORECASE,
)
_HOST = re.compile(
    r"PyThread_acquire_lock|acquire \(threading|wait \(threading|sleep|waitRecv|gloo::|"
    r"recv \(socket|recv_bytes \(multiprocessing|flock|futex|_find_and_load|gc_collect|fsync|"
    r"read \(posix",
)
_TOP = 6
"""Frames from the innermost that tell where a thread is."""


def on_host(told: Collected) -> RanksRead | None:
    """Return that a main thread waits for something else than the device, or None."""
    found = [stack for stack in told.stacks if _where(stack[1]) == "host"]
    if not found:
        return None
    why = "the main thread of a process waits on the host, not for the device"
    return RanksRead(why, _evidence(found, _HOST))


def on_device(told: Collected) -> RanksRead | None:
    """Return that every main thread whose stack is there waits for the device, or None."""
    found = [stack for stack in told.stacks if _where(stack[1]) == "device"]
    world = told.configuration.integer("tensor_parallel_size") or 1
    if not found or len(found) < max(len(told.stacks), world):
        return None
    why = f"all {len(found)} main threads whose stacks are here wait for the device"
    return RanksRead(why, _evidence(found, _DEVICE))


def _where(frames: Sequence[str]) -> str:
    for frame in frames[:_TOP]:
        if _DEVICE.search(frame):
            return "device"
        if _HOST.search(frame):
            return "host"
    return ""


def _evidence(
    found: Sequence[tuple[Line, list[str]]], pattern: re.Pattern[str]
) -> tuple[Evidence, ...]:
    evidence = []
    for line, frames in found[:5]:
        frame = next((each for each in frames[:_TOP] if pattern.search(each)), "")
        evidence.append(Evidence(line.number, f"{quote(line).text}: {frame}"))
    return tuple(evidence)
