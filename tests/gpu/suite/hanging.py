"""Cases that may hang, one after the other in a process that is started anew when one has hung.

A process that hangs in a kernel cannot be helped, only killed; starting one costs seconds. So one
process runs all cases until one hangs.
"""

from __future__ import annotations

import subprocess
import sys
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any, NamedTuple

import msgspec

DEATH_SECONDS = 20.0
LOG = "log.cases"
"""What the last process that ran cases has printed, in their folder."""

_POLL_SECONDS = 0.02


class Outcome(NamedTuple):
    """What became of a case.

    Attributes:
        case: Which.
        hung: Whether it did not end in time, and was killed.
        value: What the program says of it; None if it hung or failed.
        error: Why there is no value, if it did not hang.
        seconds: How long it took.
    """

    case: dict[str, Any]
    hung: bool
    value: Any
    error: str
    seconds: float


def outcomes(
    module: str,
    arguments: Sequence[str],
    cases: Sequence[dict[str, Any]],
    folder: Path,
    *,
    case_seconds: float,
    start_seconds: float,
    environment: Mapping[str, str],
    deadline: float,
) -> Iterator[Outcome]:
    """Run cases and yield what became of each; those for which no time is left are not yielded.

    Args:
        module: The program: it is given a file of cases and one for answers, then the arguments.
            It writes one line when it is ready, and one for each case, in their order.
        arguments: Of its own.
        cases: What it runs.
        folder: For both files and its log.
        case_seconds: After that a case hangs.
        start_seconds: How long the program may take until it is ready.
        environment: Its variables.
        deadline: When no further case is begun, by time.monotonic().
    """
    rest = list(cases)
    while rest and time.monotonic() < deadline:
        done = 0
        running = _Running(module, arguments, rest, folder, environment)
        try:
            if running.answer(start_seconds) is None:
                yield Outcome(rest.pop(0), False, None, f"no start: {running.log_tail()}", 0.0)
                continue
            for case in rest:
                if time.monotonic() > deadline:
                    return
                began = time.monotonic()
                answer = running.answer(case_seconds)
                took = time.monotonic() - began
                done += 1
                if answer is None:
                    yield _unanswered(case, running, took)
                    break
                yield Outcome(case, False, answer.get("value"), answer.get("error", ""), took)
        finally:
            running.end()
            del rest[:done]


def _unanswered(case: dict[str, Any], running: _Running, took: float) -> Outcome:
    code = running.process.poll()
    if code is None:
        return Outcome(case, True, None, "", took)
    return Outcome(case, False, None, f"ended with {code}: {running.log_tail()}", took)


class _Running:
    """One process that runs cases."""

    def __init__(
        self,
        module: str,
        arguments: Sequence[str],
        cases: Sequence[dict[str, Any]],
        folder: Path,
        environment: Mapping[str, str],
    ) -> None:
        self._answers, asked, self._log = (folder / n for n in ("answers", "cases", LOG))
        asked.write_bytes(msgspec.json.encode(list(cases)))
        self._answers.write_bytes(b"")
        self._read = 0
        with self._log.open("wb") as log:
            self.process = subprocess.Popen(
                [sys.executable, "-m", module, str(asked), str(self._answers), *arguments],
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=subprocess.STDOUT,
                env=dict(environment),
            )

    def answer(self, seconds: float) -> dict[str, Any] | None:
        """Return the next line, or None if the process has ended or does not write one in time."""
        deadline = time.monotonic() + seconds
        while time.monotonic() < deadline:
            ended = self.process.poll() is not None
            content = self._answers.read_bytes()[self._read :]
            line, newline, _ = content.partition(b"\n")
            if newline:
                self._read += len(line) + 1
                return msgspec.json.decode(line, type=dict[str, Any])
            if ended:
                return None
            time.sleep(_POLL_SECONDS)
        return None

    def log_tail(self) -> str:
        """Return the end of what it printed."""
        return " ".join(self._log.read_text(errors="replace")[-400:].split())

    def end(self) -> None:
        """Kill it, if it has not ended."""
        if self.process.poll() is None:
            self.process.kill()
        with suppress(subprocess.TimeoutExpired):
            self.process.wait(DEATH_SECONDS)
