"""A rank that serves steps whose graphs hold collectives.

``python -m tests.gpu.suite.programs.serving FOLDER RANK RANKS DEVICE CASE MODE [SECONDS]``
"""

from __future__ import annotations

import os
import random
import sys
import time
from pathlib import Path
from typing import Any

import torch
import torch.distributed as dist

from graphguard import (
    BatchDescriptor,
    Captured,
    GuardedCapture,
    RanksDiverged,
    Session,
    graphs,
    guard,
)
from tests.gpu.suite.ranks import Reporter

LARGE, SMALL = BatchDescriptor.of(16, 2), BatchDescriptor.of(8, 2)
MAX_TOKENS, HIDDEN = 64, 128
FIRST_COMES_SECONDS = 0.3


class CollectiveStep:
    """A step of two collectives for more than eight requests, and of one for fewer.

    So two ranks that replay different graphs do not pair: one waits for ever.
    """

    def __init__(self, device: str, planted: bool = False) -> None:
        self.hidden = torch.ones(MAX_TOKENS, HIDDEN, device=device)
        self._planted = planted

    def forward(self, batch: BatchDescriptor) -> torch.Tensor:
        out = self.hidden[: batch.num_tokens] * 1.0
        dist.all_reduce(out)
        if batch.num_reqs > SMALL.num_reqs:
            # The difference that the audit has to find. It is one that hangs nothing.
            reduction = dist.ReduceOp.MAX if self._planted else dist.ReduceOp.SUM
            dist.all_reduce(out, op=reduction)
        return out

    def capture(self, batch: BatchDescriptor) -> Captured:
        # NCCL connects with the first calls, which must not be captured.
        self.forward(batch)
        graph = graphs.new()
        with graphs.capture(graph):
            out = self.forward(batch)
        return Captured(graph, inputs={"hidden": self.hidden}, outputs=out)


class Server:
    """One rank.

    Args:
        rank: Its number.
        device: Where its tensors are.
        report: Takes its events.
    """

    def __init__(self, rank: int, device: str, report: Reporter) -> None:
        self.rank, self.device, self.report = rank, device, report

    def guarded(self, mode: str, *sizes: BatchDescriptor) -> GuardedCapture:
        """Return the step, warmed up."""
        step = CollectiveStep(self.device)
        settings: dict[str, Any] = {"mode": mode, "eager": step.forward, "session": Session()}
        if mode != "off":
            settings["group"] = dist.group.WORLD
        made = guard("target", **settings)(step.capture)
        made.warm_up(sizes or (SMALL, LARGE))
        return made

    def run(self, step: GuardedCapture, batch: BatchDescriptor, name: str) -> None:
        """Serve a step, and report when it is launched and when it has ended."""
        self.report(f"{name} launch", str(batch))
        step(batch)
        self.finish()
        self.report(f"{name} end", str(step.last_verdict))

    def finish(self) -> None:
        """Wait for the device."""
        if self.device == "cuda":
            torch.cuda.synchronize()

    def diverge(self, mode: str, first: BatchDescriptor, second: BatchDescriptor) -> None:
        """Serve equal steps, one in which the ranks differ, and, if that ends, equal ones again.

        Rank 0 comes first to the step in which they differ, with ``first``.
        """
        step = self.guarded(mode)
        for _ in range(3):
            self.run(step, LARGE, "equal")
        dist.barrier()
        self.report("armed")
        if self.rank != 0:
            time.sleep(FIRST_COMES_SECONDS)
        try:
            self.run(step, first if self.rank == 0 else second, "different")
        except RanksDiverged as error:
            self.report("refused", error.message)
            # The other rank is in its launch, and this one must not end before it is looked at.
            time.sleep(4)
            os._exit(3)
        for _ in range(3):
            self.run(step, LARGE, "after")
        self.report("divergences", [d.text for d in _divergences(step)])

    def audited(self, folder: Path, planted: bool) -> None:
        """Capture, and write the manifest; with a planted difference on the last rank."""
        different = planted and self.rank == dist.get_world_size() - 1
        session = Session()
        step = CollectiveStep(self.device, different)
        made = guard("target", session=session, mode="observe", on_divergence="raise")(step.capture)
        made.warm_up([SMALL, LARGE])
        self.report("written", str(session.write_manifest(folder / "manifests")))

    def soak(self, mode: str, seconds: float) -> None:
        """Serve random traffic, the same on every rank, and report what was found."""
        sizes = [BatchDescriptor.of(n, 2) for n in (1, 2, 4, 8, 16)]
        step = self.guarded(mode, *sizes)
        drawn = random.Random(7)  # noqa: S311 - alike on all ranks
        stop = torch.zeros(1, device=self.device)
        end = time.monotonic() + seconds
        steps = 0
        while True:
            for _ in range(100):
                step(BatchDescriptor.of(drawn.randint(1, 18), drawn.choice((1, 2, 2, 2))))
                steps += 1
            # All ranks end at one step: rank 0 says at which.
            stop.fill_(float(time.monotonic() > end))
            dist.broadcast(stop, src=0)
            if stop.item():
                break
        self.finish()
        self.report("verdicts", {str(v): n for v, n in step.verdicts().items()})
        self.report("divergences", [d.text for d in _divergences(step)])
        self.report("steps", steps)


def _divergences(step: GuardedCapture) -> list[Any]:
    return [] if step.agreement is None else list(step.agreement.divergences)


def main() -> None:
    """Join the group and run the case."""
    folder, rank, number = Path(sys.argv[1]), int(sys.argv[2]), int(sys.argv[3])
    device, case, mode = sys.argv[4], sys.argv[5], sys.argv[6]
    report = Reporter(folder / f"events.{rank}")
    report.logged()
    if device == "cuda":
        torch.cuda.set_device(rank % torch.cuda.device_count())
    else:
        torch.set_num_threads(1)
    dist.init_process_group(
        "nccl" if device == "cuda" else "gloo",
        init_method=f"file://{folder / 'rendezvous'}",
        rank=rank,
        world_size=number,
    )
    server = Server(rank, device, report)
    with torch.no_grad():
        if case == "first-large":
            server.diverge(mode, LARGE, SMALL)
        elif case == "first-small":
            server.diverge(mode, SMALL, LARGE)
        elif case == "soak":
            server.soak(mode, float(sys.argv[7]))
        else:
            server.audited(folder, planted=case == "planted")
    report("done")
    dist.destroy_process_group()


if __name__ == "__main__":
    main()
