"""What the ranks of the tests of the watchdog run."""

from __future__ import annotations

import os
import random
import time

import torch.distributed as dist

from graphguard import BatchDescriptor
from graphguard.blackbox.pulse import read_pulse
from graphguard.blackbox.writer import process_box
from tests.distributed.agreed_programs import Step

SECONDS = float(os.environ.get("GRAPHGUARD_LOAD_SECONDS", "20"))


def busy() -> dict[str, float]:
    """Serve steps for a while, with pauses on one rank or another while the others wait."""
    step = Step().guarded(mode="observe")
    rank, pauses = dist.get_rank(), random.Random(7)  # noqa: S311 - alike on all ranks
    steps, until = 0, time.monotonic() + SECONDS
    keep = True
    longest = 0.0
    while keep:
        slow_rank, pause = pauses.randrange(dist.get_world_size()), pauses.random()
        began = time.monotonic()
        if rank == slow_rank and steps % 10 == 0:
            time.sleep(0.5 * pause)
        step(BatchDescriptor.parse(pauses.choice(["16x2", "15x2", "3x2", "1x2"])))
        longest = max(longest, time.monotonic() - began)
        steps += 1
        if steps % 10 == 0:
            keep = _all_go_on(time.monotonic() < until)
    box = process_box()
    assert box is not None
    pulse = read_pulse(box.path)
    assert pulse is not None
    return {
        "steps": steps,
        "longest": longest,
        "ended": pulse.ended,
        "stalls": pulse.stalls,
        "beat_age": (pulse.beat_age_ns if pulse.beat_age_ns is not None else -1) / 1e9,
        "missed": pulse.missed_ns / 1e9,
        "limit": pulse.stall_ns / 1e9,
    }


def _all_go_on(mine: bool) -> bool:
    """Whether every rank wants to: none may leave while another waits for it."""
    answers: list[bool] = [False] * dist.get_world_size()
    dist.all_gather_object(answers, mine)
    return all(answers)
