"""Runs faults on real ranks, several runs at a time, each bounded."""

from __future__ import annotations

import itertools
import json
import os
import re
import subprocess
import sys
import threading
from concurrent.futures import Future
from pathlib import Path
from types import TracebackType
from typing import Any

import msgspec

from graphguard.agreement.segment import DIRECTORY
from graphguard.blackbox import choosing
from graphguard.blackbox.merge import merge
from graphguard.errors import CommandError
from tests.faults.events import Event, read_events

BOUND_SECONDS = 12.0
"""How long a run may take before all of its processes are killed."""

RUNS_AT_A_TIME = 3
"""Most of a run is waiting: for a bound, or for the second after which a watcher ends a rank."""

_ROOT = Path(__file__).parents[2]
_NOT_OURS = re.compile("GRAPHGUARD_|(LOCAL_)?(RANK|WORLD_SIZE)$")
"""Variables of whoever runs the tests that ranks must not see."""


class RankRun(msgspec.Struct, frozen=True):
    """What became of one rank.

    Attributes:
        status: Its exit code, or minus the signal that ended it.
        ended: When it ended, as ``time.monotonic`` counts.
        bounded: Whether the harness had to end it.
        events: What it wrote down.
        stderr: The end of what it wrote to stderr.
    """

    status: int
    ended: float
    bounded: bool
    events: list[Event]
    stderr: str


class Run(msgspec.Struct, frozen=True):
    """What became of a run.

    Attributes:
        ranks: Each of its ranks.
        first_difference: The first step in which the ranks differ by their black boxes, if any.
        left_behind: Ledgers that are still in ``/dev/shm``.
    """

    ranks: list[RankRun]
    first_difference: int | None
    left_behind: list[str]


class Harness:
    """Runs of faults, forked from one process. Used as a context manager."""

    def __init__(self) -> None:
        self._numbers = itertools.count(1)
        self._turns = threading.Semaphore(RUNS_AT_A_TIME)
        self._waiting: dict[int, Future[dict[str, Any]]] = {}
        self._sending = threading.Lock()
        self._zygote: subprocess.Popen[bytes] | None = None

    def __enter__(self) -> Harness:
        self._zygote = subprocess.Popen(
            [sys.executable, "-m", "tests.faults.zygote"],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            cwd=_ROOT,
            env={name: value for name, value in os.environ.items() if not _NOT_OURS.match(name)},
        )
        self._reader = threading.Thread(target=self._read, daemon=True)
        self._reader.start()
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        assert self._zygote is not None
        assert self._zygote.stdin is not None
        # It ends what it has started when there is nothing more to read.
        self._zygote.stdin.close()
        try:
            self._zygote.wait(timeout=BOUND_SECONDS)
        except subprocess.TimeoutExpired:
            self._zygote.kill()
            self._zygote.wait()
        self._reader.join()
        assert self._zygote.stdout is not None
        self._zygote.stdout.close()

    def run(self, fault: str, ranks: int, folder: Path) -> Run:
        """Run a fault on so many ranks and return what became of it."""
        with self._turns:
            number = next(self._numbers)
            answer = self._waiting[number] = Future()
            self._send(
                number=number, fault=fault, ranks=ranks, folder=str(folder), bound=BOUND_SECONDS
            )
            ended = answer.result(timeout=2 * BOUND_SECONDS)
        ranks_run = [
            RankRun(
                ended["status"][rank],
                ended["ended"][rank],
                ended["bounded"][rank],
                read_events(folder / f"events.{rank}"),
                (folder / f"stderr.{rank}").read_text(errors="replace")[-4000:],
            )
            for rank in range(ranks)
        ]
        ledgers = {e.fields["file"] for r in ranks_run for e in r.events if e.kind == "ledger"}
        left_behind = sorted(name for name in ledgers if Path(DIRECTORY, name).exists())
        return Run(ranks_run, _first_difference(folder / "boxes"), left_behind)

    def _send(self, **request: Any) -> None:
        assert self._zygote is not None
        assert self._zygote.stdin is not None
        with self._sending:
            self._zygote.stdin.write(json.dumps(request).encode() + b"\n")
            self._zygote.stdin.flush()

    def _read(self) -> None:
        assert self._zygote is not None
        assert self._zygote.stdout is not None
        for line in self._zygote.stdout:
            answer = json.loads(line)
            if "number" in answer:
                self._waiting.pop(answer["number"]).set_result(answer)
        for waiting in list(self._waiting.values()):
            waiting.set_exception(RuntimeError("the process that forks the ranks has ended"))


def _first_difference(boxes: Path) -> int | None:
    """Return what ``graphguard blackbox`` says of the ranks that are gone."""
    try:
        difference = merge(choosing.load([boxes]).boxes).first_difference
    except CommandError:
        return None  # there are none
    return None if difference is None else difference.step
