"""Forks the ranks of many runs from one process that has torch in memory.

To start Python and import torch takes longer than a whole run does. This process imports them once
and initialises nothing; each rank is a fork of it with a session and files of its own. Requests
come as lines of JSON on stdin, and what became of each run goes to stdout. When stdin ends, every
process that was started here is ended.
"""

from __future__ import annotations

import json
import os
import selectors
import signal
import sys
import time
import traceback
from pathlib import Path
from typing import Any

RUN = "run"
"""What to fork: the run's number, its folder, fault, number of ranks and bound in seconds."""


class _Run:
    """A run in progress: its processes, and until when they may take."""

    def __init__(self, request: dict[str, Any]) -> None:
        self.number: int = request["number"]
        self.deadline = time.monotonic() + request["bound"]
        self.running: dict[int, int] = {}
        self.status: list[int] = [0] * request["ranks"]
        self.ended: list[float] = [0.0] * request["ranks"]
        self.bounded: list[bool] = [False] * request["ranks"]

    def end(self, pid: int) -> None:
        rank = self.running.pop(pid)
        # What the rank has forked itself is in its group. It keeps its number until it is waited
        # for, so this meets nobody else.
        _kill(pid)
        _, status = os.waitpid(pid, 0)
        self.status[rank] = os.waitstatus_to_exitcode(status)
        self.ended[rank] = time.monotonic()

    def kill(self) -> None:
        for pid, rank in self.running.items():
            self.bounded[rank] = True
            _kill(pid)

    def result(self) -> dict[str, Any]:
        return {
            "number": self.number,
            "status": self.status,
            "ended": self.ended,
            "bounded": self.bounded,
        }


class _Zygote:
    def __init__(self) -> None:
        self._selector = selectors.DefaultSelector()
        self._selector.register(sys.stdin.fileno(), selectors.EVENT_READ)
        self._runs: dict[int, _Run] = {}
        self._waiting = b""

    def serve(self) -> None:
        while True:
            for key, _ in self._selector.select(timeout=0.05):
                if key.data is not None:
                    run, pid = key.data
                    self._ended(run, pid, key.fd)
                elif not self._read():
                    return
            now = time.monotonic()
            for run in self._runs.values():
                if now >= run.deadline:
                    run.kill()

    def kill(self) -> None:
        for run in self._runs.values():
            run.kill()

    def _read(self) -> bool:
        got = os.read(sys.stdin.fileno(), 65_536)
        *lines, self._waiting = (self._waiting + got).split(b"\n")
        for line in lines:
            self._start(json.loads(line))
        return bool(got)

    def _start(self, request: dict[str, Any]) -> None:
        run = self._runs[request["number"]] = _Run(request)
        for rank in range(request["ranks"]):
            pid = os.fork()
            if pid == 0:
                _become(rank, request)
            run.running[pid] = rank
            self._selector.register(os.pidfd_open(pid), selectors.EVENT_READ, (run, pid))

    def _ended(self, run: _Run, pid: int, pidfd: int) -> None:
        self._selector.unregister(pidfd)
        os.close(pidfd)
        run.end(pid)
        if not run.running:
            del self._runs[run.number]
            print(json.dumps(run.result()), flush=True)


def _become(rank: int, request: dict[str, Any]) -> None:
    """Be a rank, in a child. Does not return."""
    code = 1
    try:
        os.setsid()
        folder = Path(request["folder"])
        for descriptor, name in ((0, os.devnull), (1, f"stdout.{rank}"), (2, f"stderr.{rank}")):
            opened = os.open(folder / name, os.O_RDWR | os.O_CREAT | os.O_APPEND, 0o600)
            os.dup2(opened, descriptor)
            os.close(opened)
        from tests.faults.rank import run_rank

        code = run_rank(rank, request)
    except BaseException:  # noqa: BLE001 - the parent's code must not run here
        traceback.print_exc()
    finally:
        sys.stdout.flush()
        sys.stderr.flush()
        os._exit(code)


def _kill(pid: int) -> None:
    try:
        os.killpg(pid, signal.SIGKILL)
    except ProcessLookupError:
        # It has ended, or has not made its own group yet.
        try:
            os.kill(pid, signal.SIGKILL)
        except ProcessLookupError:
            return


def _main() -> None:
    import torch

    import tests.faults.catalogue  # noqa: F401 - imported once, for all ranks

    torch.set_num_threads(1)
    os.environ["GLOO_SOCKET_IFNAME"] = "lo"
    zygote = _Zygote()
    print(json.dumps({"ready": os.getpid()}), flush=True)
    try:
        zygote.serve()
    finally:
        zygote.kill()


if __name__ == "__main__":
    _main()
