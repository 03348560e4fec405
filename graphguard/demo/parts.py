"""The parts of the demo, as each of its ranks runs them."""

from __future__ import annotations

import os
import signal
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import ClassVar

import torch.distributed as dist

from graphguard.demo.plan import DECODES, MOVED, ODD_RANK, STEPS
from graphguard.demo.serving import Serving, say, wait_until
from graphguard.errors import RanksDiverged
from graphguard.graphs.emulated import EmulatedGraph

SPIN_SECONDS = 120.0
"""How long a launch waits in vain before even the demo gives it up."""


def unguarded() -> None:
    """Serve the steps that hang."""
    serving = Serving("off", STEPS)
    for step in range(len(STEPS)):
        serving.serve(step)
    _end()


def guarded() -> None:
    """Serve the same steps, and one in which only one rank sees that a tensor has moved.

    That rank comes first, so that its decision holds for all.
    """
    serving = Serving("enforce", (*STEPS, MOVED))
    for step in range(len(STEPS)):
        serving.serve(step)
    launch = serving.ledger.native.step() + 1
    if dist.get_rank() == ODD_RANK:
        tokens = serving.models["target"].tokens
        tokens.data = tokens.clone()
    else:
        serving.wait_until_published(launch, [ODD_RANK])
    serving.serve(len(STEPS), ["target"])
    _end()


def diverging() -> None:
    """Let one rank skip its drafter, and come with the next target when the others have launched.

    It stays until the others have ended: they would hear from gloo that it is gone.
    """
    serving = Serving("enforce", DECODES)
    *before, step, after = range(len(DECODES))
    for each in before:
        serving.serve(each)
    serving.serve(step, ["target"])
    if dist.get_rank() != ODD_RANK:
        with as_on_a_gpu():
            serving.serve(step, ["drafter"])
        _end()
        return
    serving.wait_until_published(serving.ledger.native.step() + 1, serving.others)
    say(diverges=True, time=time.monotonic())
    try:
        serving.serve(after, ["target"])
    except RanksDiverged as error:
        say(refused=error.message, launch=error.step, time=time.monotonic())
        held = serving.ledger.segment.held
        wait_until(lambda: not any(held(rank) for rank in serving.others))
        raise
    _end()


class KilledGraph(EmulatedGraph):
    """A graph in whose replay the process may be killed: its collectives are over, it is not.

    Attributes:
        kill: Called in the middle of the next replay, if there is to be such an end.
    """

    kill: ClassVar[Callable[[], None] | None] = None

    def replay(self) -> None:
        """Run the recorded operations, and do not return from the last time."""
        super().replay()
        if KilledGraph.kill is not None:
            KilledGraph.kill()


def killed() -> None:
    """Kill one rank in the middle of a replay, when the others wait for it in the next launch."""
    serving = Serving("enforce", DECODES, KilledGraph)
    *before, step, _ = range(len(DECODES))
    for each in before:
        serving.serve(each)

    def kill() -> None:
        serving.wait_until_published(serving.ledger.native.step() + 1, serving.others)
        say(killed=True, time=time.monotonic())
        # As the out-of-memory killer would.
        os.kill(os.getpid(), signal.SIGKILL)

    if dist.get_rank() == ODD_RANK:
        KilledGraph.kill = kill
    with as_on_a_gpu():
        serving.serve(step)
    _end()


@contextmanager
def as_on_a_gpu() -> Iterator[None]:
    """Let a launch wait on whose collective has failed because a process is gone.

    gloo notices that and raises. The captured collectives of NCCL do not: they spin.
    """
    try:
        yield
    except RuntimeError as error:
        say(does="wait on, as NCCL would", error=str(error))
        time.sleep(SPIN_SECONDS)
        raise


def _end() -> None:
    say(does="wait for the other ranks at the end")
    dist.barrier()
    say(done=True)
