"""Ranks of a stage: processes that report events to files, bounded and ended by their ids."""

from __future__ import annotations

import logging
import os
import subprocess
import sys
import time
from collections.abc import Callable, Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any, NamedTuple

import msgspec

from tests.gpu.suite import needs
from tests.gpu.suite.settings import Settings

RANKS = 2
DEATH_SECONDS = 15.0


class Event(msgspec.Struct, frozen=True):
    """Something that a rank reports.

    Attributes:
        name: What.
        at: When, in seconds of CLOCK_MONOTONIC, which all processes of a machine share.
        value: What belongs to it.
    """

    name: str
    at: float
    value: Any = None


class Rank(NamedTuple):
    """How a rank ended.

    Attributes:
        code: Its exit code; None if it hung and was killed.
        events: What it reported.
        log: The end of what it printed.
    """

    code: int | None
    events: tuple[Event, ...]
    log: str

    def value(self, name: str) -> Any:
        """Return what belongs to the last event of a name, or None."""
        return next((event.value for event in reversed(self.events) if event.name == name), None)

    def when(self, name: str, text: str = "") -> float | None:
        """Return when something was reported first, or None."""
        return next(
            (e.at for e in self.events if e.name == name and text in str(e.value)),
            None,
        )


class Reporter:
    """Writes the events of this rank."""

    def __init__(self, path: Path) -> None:
        self._file = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o600)

    def __call__(self, name: str, value: Any = None) -> None:
        """Report an event, in one system call: whatever becomes of this rank, it is there."""
        line = msgspec.json.encode(Event(name, time.monotonic(), value)) + b"\n"
        os.write(self._file, line)

    def logged(self) -> None:
        """Report what graphguard logs, too, when it does."""

        class Handler(logging.Handler):
            def emit(_self, record: logging.LogRecord) -> None:
                self("log", record.getMessage()[:2_000])

        logger = logging.getLogger("graphguard")
        logger.setLevel(logging.INFO)
        logger.addHandler(Handler())


def now() -> float:
    """Return the time as events have it."""
    return time.monotonic()


def run(
    program: str,
    arguments: Sequence[str],
    folder: Path,
    settings: Settings,
    seconds: float,
    *,
    number: int = RANKS,
    environment: dict[str, str] | None = None,
    until: Callable[[list[tuple[Event, ...]]], bool] | None = None,
) -> list[Rank]:
    """Run a program of ``tests/gpu/suite/programs`` on ranks; end what has not ended in time.

    Args:
        program: The module. It is given the folder, its rank, the number of ranks, the device, and
            the arguments.
        arguments: Of its own.
        folder: An empty folder for what they write.
        settings: Of the stage.
        seconds: How long they may take.
        number: How many.
        environment: More variables.
        until: Looks at the events of all ranks; when it says so, they are ended early.
    """
    folder.mkdir(parents=True, exist_ok=True)
    variables = needs.two_rank_environment(settings) if number > 1 else dict(os.environ)
    variables |= {"GLOO_SOCKET_IFNAME": "lo", "GRAPHGUARD_DIR": str(folder / "boxes")}
    variables |= environment or {}
    processes = [
        _start(
            program,
            [str(folder), str(rank), str(number), settings.device, *arguments],
            folder / f"log.{rank}",
            variables | {"RANK": str(rank), "WORLD_SIZE": str(number)},
        )
        for rank in range(number)
    ]
    deadline = time.monotonic() + seconds
    try:
        while any(process.poll() is None for process in processes):
            if time.monotonic() > deadline:
                break
            if until is not None and until([events(folder, r) for r in range(number)]):
                break
            time.sleep(0.05)
    finally:
        codes = [process.poll() for process in processes]
        _end(processes)
    return [Rank(code, events(folder, rank), _log(folder, rank)) for rank, code in enumerate(codes)]


def events(folder: Path, rank: int) -> tuple[Event, ...]:
    """Return what a rank has reported until now."""
    found = []
    with suppress(OSError):
        for line in (folder / f"events.{rank}").read_bytes().splitlines():
            with suppress(msgspec.DecodeError):
                found.append(msgspec.json.decode(line, type=Event))
    return tuple(found)


def _start(
    program: str, arguments: list[str], log_path: Path, environment: dict[str, str]
) -> subprocess.Popen[bytes]:
    with log_path.open("wb") as log:
        # In the stage's process group: what ends the stage ends its ranks.
        return subprocess.Popen(
            [sys.executable, "-m", f"tests.gpu.suite.programs.{program}", *arguments],
            stdin=subprocess.DEVNULL,
            stdout=log,
            stderr=subprocess.STDOUT,
            cwd=Path(__file__).parents[3],
            env=environment,
        )


def _end(processes: Sequence[subprocess.Popen[bytes]]) -> None:
    for process in processes:
        if process.poll() is None:
            process.kill()
    for process in processes:
        with suppress(subprocess.TimeoutExpired):
            process.wait(DEATH_SECONDS)


def _log(folder: Path, rank: int) -> str:
    with suppress(OSError):
        return (folder / f"log.{rank}").read_text(errors="replace")[-3_000:]
    return ""
