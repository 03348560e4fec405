"""Ranks that agree, for the benchmarks: eight guards in one process, and processes that vote.

Run as a module, this file is one process of the comparison with gloo.
"""

from __future__ import annotations

import json
import os
import statistics
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from threading import Thread
from typing import Any

import torch.distributed as dist
from torch._C._distributed_c10d import FileStore, HashStore

from benchmarks.step import SIZES, Model
from graphguard import BatchDescriptor, GuardedCapture, Session, guard
from graphguard.agreement.group import Agreement
from graphguard.agreement.store import GroupMembers
from graphguard.environment import Mode

EXACT = BatchDescriptor.of(16, 2)
ROUNDS = 2_000
RUN_TIMEOUT = 120
SECONDS = 30.0


class Nothing:
    """A graph whose replay does nothing, so that what is left is the guard."""

    def replay(self) -> None:
        """Do nothing."""

    def reset(self) -> None:
        """Do nothing."""


class AgreedGuards:
    """Guards of the ranks of one group, all in this process; the first is measured."""

    def __init__(self, ranks: int, mode: str) -> None:
        store: Any = HashStore()
        everyone = tuple(range(ranks))
        self.guards = [
            self._guarded(Agreement(store, GroupMembers(r, everyone, "all"), Mode(mode), SECONDS))
            for r in range(ranks)
        ]
        # They meet at the end of warm-up, so each needs a thread for it; captures are not
        # made for several threads.
        for guarded in self.guards:
            for size in SIZES:
                guarded._graphs.add(size)
        threads = [Thread(target=guarded.warm_up, args=([],)) for guarded in self.guards]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        for guarded in self.guards:
            for number, captured in enumerate(guarded._graphs.captured):
                guarded._graphs.captured[number] = type(captured)(
                    Nothing(), outputs=captured.outputs
                )
            assert guarded.agreement is not None
            assert guarded.agreement.ledger is not None

    @staticmethod
    def _guarded(agreement: Agreement) -> GuardedCapture:
        model = Model(0)
        return guard(
            "target",
            eager=model.forward,
            mode=agreement.mode,
            session=Session(),
            group=agreement,
        )(model.capture)

    def step_of_others(self) -> None:
        """Run the step of every rank but the first."""
        for guarded in self.guards[1:]:
            guarded(EXACT)


def spread(call: Callable[[], object], before: Callable[[], object], rounds: int) -> list[float]:
    """Time each call on its own, after what comes before it; in seconds, sorted."""
    times = []
    for _ in range(rounds):
        before()
        began = time.perf_counter()
        call()
        times.append(time.perf_counter() - began)
    return sorted(times)


def vote_and_all_reduce(ranks: int, folder: Path) -> dict[str, float]:
    """Let real processes vote, and reduce one number with gloo, in turn; medians in seconds."""
    processes = [
        subprocess.Popen(
            [sys.executable, "-m", "benchmarks.agreeing", str(rank), str(ranks), str(folder)],
            env={"GLOO_SOCKET_IFNAME": "lo", "OMP_NUM_THREADS": "1", **os.environ},
            cwd=Path(__file__).parents[1],
        )
        for rank in range(ranks)
    ]
    try:
        codes = [process.wait(timeout=RUN_TIMEOUT) for process in processes]
    finally:
        for process in processes:
            if process.poll() is None:
                process.kill()
                process.wait()
    assert codes == [0] * ranks
    result: dict[str, float] = json.loads((folder / "result").read_text())
    return result


def _rank(rank: int, ranks: int, folder: Path) -> None:
    import torch

    torch.set_num_threads(1)
    dist.init_process_group(
        "gloo", init_method=f"file://{folder / 'rendezvous'}", rank=rank, world_size=ranks
    )
    model = Model(0)
    store: Any = FileStore(str(folder / "store"), ranks)
    agreement = Agreement(
        store,
        GroupMembers(rank, tuple(range(ranks)), "all"),
        Mode.ENFORCE,
        SECONDS,
    )
    decorate = guard("target", eager=model.forward, mode="enforce", group=agreement)
    decorate(model.capture).warm_up([EXACT])
    ledger = agreement.ledger
    assert ledger is not None
    native = ledger.native
    launch = native.add_launch(0, 1, 1, 1, None, 0, 0)
    number = torch.zeros(1, dtype=torch.int64)
    ways: dict[str, Callable[[], object]] = {
        "vote": lambda: native.vote(launch, 0, 16, 2, 32, 0, SECONDS),
        "all_reduce": lambda: dist.all_reduce(number, op=dist.ReduceOp.MAX),
        "publish": lambda: native.propose(launch, 0, 16, 2, 32, 0),
    }
    times: dict[str, list[float]] = {name: [] for name in ways}
    with torch.no_grad():
        for _ in range(ROUNDS // ranks):
            for name, way in ways.items():
                began = time.perf_counter()
                way()
                times[name].append(time.perf_counter() - began)
    dist.barrier()
    if rank == 0:
        medians = {name: statistics.median(taken) for name, taken in times.items()}
        (folder / "result").write_text(json.dumps(medians))
    dist.destroy_process_group()


if __name__ == "__main__":
    _rank(int(sys.argv[1]), int(sys.argv[2]), Path(sys.argv[3]))
