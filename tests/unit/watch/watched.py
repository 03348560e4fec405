"""Processes with a watchdog whose examiner only writes down that it was started, and with what."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import msgspec

SECONDS = 60
LIMIT = 0.6

EXAMINER = """
import fcntl, json, os, sys, time
said = os.environ["SAID"]
line = {
    "at": time.monotonic(),
    "argv": sys.argv[1:],
    "pid": os.getpid(),
    "session": os.getsid(0),
    "group": os.getpgid(0),
    "blocked": open("/proc/self/status").read().split("SigBlk:")[1].split()[0],
    "environment": sorted(os.environ),
    "files": {n: os.readlink(f"/proc/self/fd/{n}") for n in os.listdir("/proc/self/fd")
              if os.path.exists(f"/proc/self/fd/{n}")},
}
with open(said, "a") as file:
    file.write(json.dumps(line) + "\\n")
time.sleep(float(os.environ.get("STAYS", "0")))
"""

PREAMBLE = """
import ctypes, os, sys, time
import graphguard
from graphguard.blackbox.pulse import ActivityKind
from graphguard.watch import activity
from graphguard.watch import watchdog
watchdog.EXAMINER = "noting_examiner"

def say(*words):
    print(*words, flush=True)
"""


class Examined(msgspec.Struct):
    """What an examiner was started with.

    Attributes:
        at: When, by CLOCK_MONOTONIC.
        argv: Its arguments.
        pid: Its process.
        session: Its session.
        group: Its process group.
        blocked: The signals that it blocks, as /proc shows them.
        environment: The names of its variables.
        files: Its open files by number.
    """

    at: float
    argv: list[str]
    pid: int
    session: int
    group: int
    blocked: str
    environment: list[str]
    files: dict[str, str]

    def option(self, name: str) -> str:
        return self.argv[self.argv.index(name) + 1]


class Place:
    """A directory for black boxes, and what examiners of its processes have said."""

    def __init__(self, directory: Path) -> None:
        self.directory = directory
        self._said = directory / "said.jsonl"
        modules = directory / "modules"
        modules.mkdir()
        (modules / "noting_examiner.py").write_text(EXAMINER)
        self._modules = modules

    def environment(self, **settings: str) -> dict[str, str]:
        return {
            **os.environ,
            "GRAPHGUARD_DIR": str(self.directory),
            "GRAPHGUARD_RING_ENTRIES": "64",
            "GRAPHGUARD_STALL_SECONDS": str(LIMIT),
            "PYTHONPATH": os.pathsep.join([str(self._modules), *sys.path]),
            "SAID": str(self._said),
            **settings,
        }

    def run(self, code: str, **settings: str) -> subprocess.CompletedProcess[str]:
        """Run a program to its end."""
        done = subprocess.run(
            [sys.executable, "-c", PREAMBLE + code],
            env=self.environment(**settings),
            capture_output=True,
            text=True,
            check=False,
            timeout=SECONDS,
        )
        assert done.returncode == 0, done.stderr
        return done

    @contextmanager
    def started(self, code: str, **settings: str) -> Iterator[subprocess.Popen[str]]:
        """Start a program, hand it out once it has printed a line, and end it."""
        with subprocess.Popen(
            [sys.executable, "-c", PREAMBLE + code],
            env=self.environment(**settings),
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
        ) as process:
            try:
                assert process.stdout is not None
                assert process.stdout.readline()
                yield process
            finally:
                process.send_signal(signal.SIGKILL)
                process.wait(SECONDS)

    def examined(self, least: int = 0, seconds: float = 20.0) -> list[Examined]:
        """Return what examiners were started with, once there are at least so many."""
        until = time.monotonic() + seconds
        while True:
            text = self._said.read_text() if self._said.exists() else ""
            found = [msgspec.json.decode(line, type=Examined) for line in text.splitlines()]
            if len(found) >= least or time.monotonic() > until:
                assert len(found) >= least, f"{len(found)} of {least} examiners were started"
                return found
            time.sleep(0.05)
