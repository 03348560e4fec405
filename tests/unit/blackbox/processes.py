"""Processes with a black box, started by tests, bounded, and ended by their ids."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path

SECONDS = 60

PREAMBLE = """
import os, sys
from graphguard.blackbox.events import Event
from graphguard.blackbox.writer import process_box

def say(*words):
    print(*words, flush=True)

def wait():
    sys.stdin.readline()
"""


def environment(directory: Path, **more: str) -> dict[str, str]:
    settings = {"GRAPHGUARD_DIR": str(directory), "GRAPHGUARD_RING_ENTRIES": "64"}
    return {**os.environ, **settings, **more}


def run(code: str, directory: Path, **more: str) -> subprocess.CompletedProcess[str]:
    """Run a program to its end."""
    return subprocess.run(
        [sys.executable, "-c", PREAMBLE + code],
        env=environment(directory, **more),
        capture_output=True,
        text=True,
        check=False,
        timeout=SECONDS,
    )


@contextmanager
def started(
    code: str, directory: Path, settings: Mapping[str, str] | None = None
) -> Iterator[subprocess.Popen[str]]:
    """Start a program, hand it out once it has printed a line, and end it."""
    with subprocess.Popen(
        [sys.executable, "-c", PREAMBLE + code],
        env=environment(directory, **(settings or {})),
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
    ) as process:
        try:
            assert process.stdout is not None
            assert process.stdout.readline()
            yield process
        finally:
            if process.poll() is None:
                process.send_signal(signal.SIGKILL)
            process.wait(SECONDS)
