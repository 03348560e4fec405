"""Running a command with a bound on its time and its output, and leaving nothing of it behind."""

from __future__ import annotations

import ctypes
import os
import signal
import subprocess
import time
from collections.abc import Mapping, Sequence
from contextlib import suppress
from pathlib import Path
from typing import NamedTuple

POLL_SECONDS = 0.05
DEATH_SECONDS = 20.0
"""How long a killed process may take to end: one whose GPU hangs has a context to be torn down."""

MAX_OUTPUT_BYTES = 64 * 1024 * 1024
_PR_SET_CHILD_SUBREAPER = 36


class Ended(NamedTuple):
    """How a command ended.

    Attributes:
        code: Its exit code, negative for a signal; None if it was killed here.
        seconds: How long it ran.
        why_killed: Why it was killed, or empty.
        left_behind: How many processes it had left when it ended, which were killed.
        immortal: How many processes have not ended although they were killed.
    """

    code: int | None
    seconds: float
    why_killed: str = ""
    left_behind: int = 0
    immortal: int = 0


def adopt_orphans() -> None:
    """Become the parent of what this process's descendants leave behind, so that it is found."""
    ctypes.CDLL(None, use_errno=True).prctl(_PR_SET_CHILD_SUBREAPER, 1, 0, 0, 0)


def run(
    command: Sequence[str],
    log: Path,
    seconds: float,
    environment: Mapping[str, str] | None = None,
    max_output: int = MAX_OUTPUT_BYTES,
) -> Ended:
    """Run a command in a process group of its own, with its output in a file.

    Whatever ends it, nothing of it runs on: its group is killed by its id, and what has left the
    group is found among the children of this process, see :func:`adopt_orphans`.

    Raises:
        OSError: If it cannot be started.
    """
    before = set(_children())
    began = time.monotonic()
    with log.open("wb") as output:
        process = subprocess.Popen(
            list(command),
            stdin=subprocess.DEVNULL,
            stdout=output,
            stderr=subprocess.STDOUT,
            env=None if environment is None else dict(environment),
            start_new_session=True,
        )
    why = "it was interrupted"
    try:
        why = _watch(process, log, began + seconds, seconds, max_output)
    finally:
        took = time.monotonic() - began
        left, immortal = _end(process, before)
    code = None if why else process.returncode
    return Ended(code, took, why, left, immortal)


def _watch(
    process: subprocess.Popen[bytes], log: Path, deadline: float, seconds: float, most: int
) -> str:
    while process.poll() is None:
        if time.monotonic() > deadline:
            return f"it ran for more than {seconds:.0f} s"
        if log.stat().st_size > most:
            return f"it wrote more than {most} bytes"
        time.sleep(POLL_SECONDS)
    return ""


def _end(process: subprocess.Popen[bytes], before: set[int]) -> tuple[int, int]:
    """Kill what is left of a command; return how much that was, and how much of it remains."""
    alive = process.poll() is None
    # The group lives on while any process of it does, so its id is not another's yet.
    with suppress(ProcessLookupError, PermissionError):
        os.killpg(process.pid, signal.SIGKILL)
    deadline = time.monotonic() + DEATH_SECONDS
    if alive:
        with suppress(subprocess.TimeoutExpired):
            process.wait(DEATH_SECONDS)
    seen: set[int] = set()
    while True:
        orphans = [pid for pid in _children() if pid not in before and pid != process.pid]
        if not orphans or time.monotonic() > deadline:
            break
        for pid in orphans:
            seen.add(pid)
            with suppress(ProcessLookupError, PermissionError):
                os.kill(pid, signal.SIGKILL)
            with suppress(ChildProcessError):
                os.waitpid(pid, os.WNOHANG)
        time.sleep(POLL_SECONDS)
    return len(seen), len(orphans) + (process.poll() is None)


def _children() -> list[int]:
    """Return the children of this process, those of all its threads."""
    found = []
    for task in Path("/proc/self/task").iterdir():
        with suppress(OSError):
            found += [int(pid) for pid in (task / "children").read_text().split()]
    return found
