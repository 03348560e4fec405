"""Running a command that has a hard limit: in time, and in what it may say."""

from __future__ import annotations

import os
import selectors
import signal
import subprocess
import sys
import time
from collections.abc import Mapping, Sequence
from typing import Any

import msgspec

MAX_OUTPUT = 8 * 2**20
"""Bytes that are kept of what a command says; it is ended when it says more."""

_SECONDS_TO_END = 0.5
_BLOCK = 65536


class Outcome(msgspec.Struct, frozen=True):
    """What became of a command.

    Attributes:
        output: Its standard output.
        errors: Its standard error.
        problem: Why its output is not to be used; empty if it ended well.
        ended_here: Whether it was ended because it reached a limit.
    """

    output: bytes
    errors: bytes
    problem: str
    ended_here: bool = False


def run(
    argv: Sequence[str],
    seconds: float,
    *,
    environment: Mapping[str, str] | None = None,
    max_output: int = MAX_OUTPUT,
) -> Outcome:
    """Run a command for so many seconds at most.

    It has a process group of its own, so that all that it has started can be ended with it, and
    no input.

    Args:
        argv: The command and its arguments.
        seconds: Its limit; it is killed then.
        environment: What it is given; that of this process if None.
        max_output: How many bytes it may write.
    """
    until = time.monotonic() + seconds
    try:
        process = subprocess.Popen(
            argv,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            **_group_of_its_own(),
            env=None if environment is None else dict(environment),
        )
    except OSError as error:
        return Outcome(b"", b"", f"it cannot be started: {error.strerror}")
    said: tuple[bytearray, bytearray] = (bytearray(), bytearray())
    try:
        stopped = _listen(process, until, said, max_output)
        if not stopped:
            try:
                process.wait(max(0.0, until - time.monotonic()))
            except subprocess.TimeoutExpired:
                stopped = f"it took longer than {seconds:.2f} s"
    finally:
        _end(process)
    problem = stopped
    if not problem and process.returncode:
        problem = f"it ended with {process.returncode}"
    return Outcome(bytes(said[0]), bytes(said[1]), problem, ended_here=bool(stopped))


def _group_of_its_own() -> dict[str, Any]:
    # Not a session of its own: Linux shares the cores out by sessions first, and what spins may
    # leave nothing to the others for seconds (docs/reliability.md).
    if sys.version_info >= (3, 11):
        return {"process_group": 0}
    return {"start_new_session": True}


def _listen(
    process: subprocess.Popen[bytes],
    until: float,
    said: tuple[bytearray, bytearray],
    max_output: int,
) -> str:
    """Collect what it says until it says no more; return why that was broken off."""
    began = time.monotonic()
    assert process.stdout is not None  # noqa: S101 - both were asked for
    assert process.stderr is not None  # noqa: S101
    with selectors.DefaultSelector() as selector:
        selector.register(process.stdout, selectors.EVENT_READ, said[0])
        selector.register(process.stderr, selectors.EVENT_READ, said[1])
        while selector.get_map():
            left = until - time.monotonic()
            if left <= 0:
                return f"it took longer than {until - began:.2f} s"
            for key, _ in selector.select(left):
                block = os.read(key.fd, _BLOCK)
                if not block:
                    selector.unregister(key.fileobj)
                    continue
                key.data.extend(block)
                if len(key.data) > max_output:
                    return f"it said more than {max_output:,} bytes"
    return ""


def _end(process: subprocess.Popen[bytes]) -> None:
    for stream in (process.stdout, process.stderr):
        if stream is not None:
            stream.close()
    if process.poll() is not None:
        return
    # It was started with a group of its own, so this is nobody else's.
    try:
        os.killpg(process.pid, signal.SIGKILL)
        process.wait(_SECONDS_TO_END)
    except (ProcessLookupError, subprocess.TimeoutExpired):
        # In a wait that cannot be interrupted. It ends when the kernel lets it.
        return
