"""Watching an engine from outside: what its log says and when, and what is kept of a stall."""

from __future__ import annotations

import re
import threading
import time
from pathlib import Path
from typing import Any

import msgspec

_POLL_SECONDS = 0.05

VLLM = {
    "warned": re.compile(r"No available shared memory broadcast block found"),
    "worker died": re.compile(r"Worker proc .* died unexpectedly"),
    "worker's exception": re.compile(r"WorkerProc hit an exception"),
    "timed out": re.compile(r"RPC call to \w+ timed out"),
    "engine dead": re.compile(r"EngineDeadError"),
    "did not start": re.compile(r"Engine core initialization failed|WorkerProc initialization"),
}
"""What vLLM itself says, by what it means."""

STALL = re.compile(r"graphguard: STALL \[(?P<of>[a-z-]+)\] (?!over)")
OVER = re.compile(r"graphguard: STALL \[[a-z-]+\] over: (?P<how>.*)")
SLOW = re.compile(r"graphguard: INFO (slow, no stall|was slow)")


class Line(msgspec.Struct, frozen=True):
    """A line of the log.

    Attributes:
        seen: When it was first there, in seconds since the epoch.
        text: The line.
    """

    seen: float
    text: str


class Kept(msgspec.Struct, frozen=True):
    """What was kept of one stall.

    Attributes:
        directory: Where it is.
        seen: When its verdict was first there, in seconds since the epoch.
    """

    directory: str
    seen: float

    @property
    def path(self) -> Path:
        """The directory."""
        return Path(self.directory)

    def verdict(self) -> dict[str, Any]:
        """Return the verdict as it is now, as plain data."""
        found: dict[str, Any] = msgspec.json.decode((self.path / "verdict.json").read_bytes())
        return found

    def index(self) -> dict[str, Any]:
        """Return what was kept and what was not; empty while it is being collected."""
        path = self.path / "index.json"
        found: dict[str, Any] = msgspec.json.decode(path.read_bytes()) if path.exists() else {}
        return found


class Observer:
    """Looks at a log and at a directory of black boxes until it is stopped.

    Args:
        log: The engine's log.
        directory: The GRAPHGUARD_DIR of the engine.
    """

    def __init__(self, log: Path, directory: Path) -> None:
        self._log, self._directory = log, directory
        self._lines: list[Line] = []
        self._kept: dict[str, Kept] = {}
        self._read = 0
        self._looking = threading.Lock()
        self._ended = threading.Event()
        self._thread = threading.Thread(target=self._watch, daemon=True)

    def __enter__(self) -> Observer:
        self._thread.start()
        return self

    def __exit__(self, *_exception: object) -> None:
        self._ended.set()
        self._thread.join()

    def lines(self, since: float = 0.0) -> list[Line]:
        """Return the lines that were first seen after a moment."""
        return [line for line in list(self._lines) if line.seen >= since]

    def first(self, pattern: re.Pattern[str], since: float = 0.0) -> Line | None:
        """Return the first line that matches, of those seen after a moment."""
        return next((line for line in self.lines(since) if pattern.search(line.text)), None)

    def all(self, pattern: re.Pattern[str], since: float = 0.0) -> list[Line]:
        """Return all lines that match, of those seen after a moment."""
        return [line for line in self.lines(since) if pattern.search(line.text)]

    def kept(self, since: float = 0.0) -> list[Kept]:
        """Return what was kept of stalls after a moment, the oldest first."""
        return sorted((k for k in list(self._kept.values()) if k.seen >= since), key=_when)

    def _watch(self) -> None:
        while not self._ended.is_set():
            self.look()
            self._ended.wait(_POLL_SECONDS)
        self.look()

    def look(self) -> None:
        """Read what has been written since the last look."""
        with self._looking:
            self._look()

    def _look(self) -> None:
        now = time.time()
        if self._log.exists():
            with self._log.open("rb") as log:
                log.seek(self._read)
                text = log.read()
            # A line that is being written is read when it is whole.
            whole = text[: text.rfind(b"\n") + 1]
            self._read += len(whole)
            self._lines += [Line(now, t.decode(errors="replace")) for t in whole.splitlines()]
        for verdict in self._directory.glob("stall-*/verdict.json"):
            directory = str(verdict.parent)
            if directory not in self._kept:
                self._kept[directory] = Kept(directory, now)


def _when(kept: Kept) -> float:
    return kept.seen
