"""The ranks of the demo as processes: started, watched with a bound, and ended."""

from __future__ import annotations

import contextlib
import json
import os
import signal
import subprocess
import sys
import tempfile
import threading
import time
from pathlib import Path
from typing import Any

import msgspec

from graphguard import environment

START_SECONDS = 120.0
"""How long ranks may take to import torch, meet and capture before it counts as a failure."""
STACK_SECONDS = 1.0
POLL_SECONDS = 0.02


class RankReport(msgspec.Struct):
    """What was seen of one rank.

    Attributes:
        rank: Its number.
        pid: Its process.
        exit_code: How it ended by itself, or None if it had to be ended.
        ended: When it was seen to have ended, as ``time.monotonic`` counts, which is one clock for
            all processes of a machine; None if it had to be ended.
        events: What it said, in order.
        stack: Where its Python code stood when it no longer moved, innermost call first.
        stderr: The last lines of its standard error.
    """

    rank: int
    pid: int
    exit_code: int | None
    ended: float | None
    events: list[dict[str, Any]]
    stack: list[str] = []
    stderr: list[str] = []


class RunReport(msgspec.Struct):
    """What was seen of one run.

    Attributes:
        outcome: ``completed`` if every rank ended by itself with 0, ``ended`` if every rank ended
            by itself where not all were to end with 0, ``hang`` if ranks that had begun their
            steps said nothing for the bound, ``aborted`` if one ended that was not to,
            ``not started`` if they did not get as far as the first step in time.
        seconds: How long the run took, waiting included.
        waited_seconds: How long nothing was heard before it counted as a hang.
        ranks: One report a rank.
    """

    outcome: str
    seconds: float
    waited_seconds: float
    ranks: list[RankReport]


class _Rank:
    """One process and what it says."""

    def __init__(
        self, rank: int, command: list[str], folder: Path, environ: dict[str, str]
    ) -> None:
        self.rank = rank
        self.ended: float | None = None
        self.events: list[dict[str, Any]] = []
        self.last_heard = time.monotonic()
        self._stacks = folder / f"stacks.{rank}"
        self._stderr = (folder / f"stderr.{rank}").open("w+")
        # A session of its own, so that it can be ended with whatever it may have started.
        self.process = subprocess.Popen(
            [*command, "--rank", str(rank), "--stacks", str(self._stacks)],
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=self._stderr,
            text=True,
            start_new_session=True,
            env=environ,
        )
        self._reader = threading.Thread(target=self._read, daemon=True)
        self._reader.start()

    @property
    def ready(self) -> bool:
        return any("ready" in event for event in self.events)

    def poll(self) -> int | None:
        """Return the exit code, if it has ended."""
        code = self.process.poll()
        if code is not None and self.ended is None:
            self.ended = time.monotonic()
        return code

    def _read(self) -> None:
        for line in self.process.stdout or ():
            # Libraries may write to standard output as well; what is no event is theirs.
            with contextlib.suppress(ValueError):
                event = json.loads(line)
                if isinstance(event, dict):
                    self.events.append(event)
                    self.last_heard = time.monotonic()

    def ask_for_stack(self) -> None:
        with contextlib.suppress(ProcessLookupError):
            os.kill(self.process.pid, signal.SIGUSR1)

    def end(self) -> RankReport:
        exit_code = self.poll()
        if exit_code is None:
            with contextlib.suppress(ProcessLookupError):
                os.killpg(self.process.pid, signal.SIGKILL)
            self.process.wait()
        self._reader.join(timeout=5)
        if self.process.stdout is not None:
            self.process.stdout.close()
        self._stderr.seek(0)
        stderr = self._stderr.read().splitlines()[-20:]
        self._stderr.close()
        stack = self._stacks.read_text().splitlines()[1:] if self._stacks.exists() else []
        return RankReport(
            rank=self.rank,
            pid=self.process.pid,
            exit_code=exit_code,
            ended=self.ended,
            events=self.events,
            stack=[line.strip() for line in stack],
            stderr=stderr,
        )


def run_ranks(
    num_ranks: int, part: str, *, bound: float, directory: Path, all_succeed: bool = True
) -> RunReport:
    """Run a part of the demo on real processes, and end whatever does not end by itself.

    Args:
        num_ranks: How many processes.
        part: Which part.
        bound: Seconds without a word from any rank after which it is a hang.
        directory: Where they leave their manifests and black boxes.
        all_succeed: Whether all are to end with 0. If not, all are waited for, however they end.
    """
    began = time.monotonic()
    with tempfile.TemporaryDirectory(prefix="graphguard-demo-") as name:
        folder = Path(name)
        command = [sys.executable, "-m", "graphguard.demo.worker", "--part", part]
        command += ["--ranks", str(num_ranks), "--rendezvous", str(folder / "rendezvous")]
        environ = _environ(directory)
        ranks: list[_Rank] = []
        try:
            # One at a time, so that those that did start are ended if the next one does not.
            ranks.extend(_Rank(rank, command, folder, environ) for rank in range(num_ranks))
            outcome, waited = _watch(ranks, bound, all_succeed)
            if outcome == "hang":
                for started in ranks:
                    started.ask_for_stack()
                time.sleep(STACK_SECONDS)
        finally:
            reports = [started.end() for started in ranks]
    return RunReport(outcome, time.monotonic() - began, waited, reports)


def _environ(directory: Path) -> dict[str, str]:
    """Return the environment of the ranks: what they do does not depend on settings of the user."""
    settings = {variable.name for variable in environment.VARIABLES}
    kept = {name: value for name, value in os.environ.items() if name not in settings}
    return {**kept, environment.DIRECTORY.name: str(directory)}


def _watch(ranks: list[_Rank], bound: float, all_succeed: bool) -> tuple[str, float]:
    deadline = time.monotonic() + START_SECONDS
    while True:
        codes = [rank.poll() for rank in ranks]
        ready = all(rank.ready for rank in ranks)
        if any(code not in (None, 0) for code in codes) and (all_succeed or not ready):
            return "aborted", 0.0
        if None not in codes:
            return "ended" if any(codes) else "completed", 0.0
        now = time.monotonic()
        silent = now - max(rank.last_heard for rank in ranks)
        if ready:
            if silent >= bound:
                return "hang", silent
        elif now > deadline:
            return "not started", silent
        time.sleep(POLL_SECONDS)
