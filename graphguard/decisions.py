"""JSON lines of decisions: one for each that is not to replay the graph of exactly this batch.

Shapes and names only, never tokens or prompts. A step puts a tuple into a queue, and a thread
writes it: a disk that is slow or full takes lines, never time of a step.
"""

from __future__ import annotations

import os
import threading
import time
from collections import deque
from datetime import datetime, timezone
from typing import TYPE_CHECKING

import msgspec

from graphguard import environment
from graphguard.at_exit import at_exit
from graphguard.blackbox.directory import FILE_MODE, private_directory
from graphguard.errors import ConfigurationError, GraphguardError
from graphguard.log import logger
from graphguard.session import process_rank
from graphguard.verdict import Action, Reason

if TYPE_CHECKING:
    from pathlib import Path

MAX_WAITING = 4_096
"""How many decisions wait for the thread at most; more are dropped, and counted."""
MAX_FILE_BYTES = 2**30
MAX_TEXT = 256
WRITE_SECONDS = 0.25
EXIT_SECONDS = 2.0
_MAX_DUPLICATES = 1_000


class Line(msgspec.Struct, frozen=True):
    """One line of the file.

    Attributes:
        time: When it was decided, UTC.
        rank: Global rank of the process.
        pid: The process.
        role: Which model: ``target``, ``drafter`` or the user's own name.
        step: Which launch of the group, counted from 1; 0 where there is no group.
        batch: What the step wanted to run.
        action: What is done.
        reason: Why.
        graph: The graph that is launched, or null where none is.
        group: The ranks that decide together, or null where this rank is alone.
    """

    time: str
    rank: int
    pid: int
    role: str
    step: int
    batch: str
    action: str
    reason: str
    graph: str | None
    group: str | None


class Dropped(msgspec.Struct, frozen=True):
    """A line that stands for those that could not be written."""

    time: str
    rank: int
    pid: int
    dropped: int


_Waiting = tuple[int, str, int, object, object, object, object, object]
"""Time in nanoseconds, role, step, batch, action, reason, graph, group."""


class DecisionLog:
    """The decisions of this process, as a file of JSON lines.

    Attributes:
        path: The file, of mode 0600.
        rank: What the lines say. At first the rank that torch.distributed or ``RANK`` says.

    Args:
        target: A file, of whose name each process makes one of its own, or a directory.

    Raises:
        ConfigurationError: If no file can be made there, or others may write to its directory.
    """

    def __init__(self, target: str) -> None:
        self.rank = process_rank()[0]
        # Two counts, because two threads add to them.
        self._too_many = 0
        self._lost = 0
        self._pid = os.getpid()
        self.path, self._descriptor = _open(target, self.rank, self._pid)
        self._waiting: deque[_Waiting] = deque()
        self._told_dropped = 0
        self._size = 0
        self._warned = False
        self._writing = threading.Lock()
        self._ends = threading.Event()
        self._encoder = msgspec.json.Encoder()
        self._thread = threading.Thread(target=self._run, name="graphguard-decisions", daemon=True)
        self._thread.start()

    def decision(
        self,
        role: str,
        step: int,
        batch: object,
        action: Action | str,
        reason: Reason | str,
        *,
        graph: object = None,
        group: object = None,
    ) -> None:
        """Keep a decision; a replay of the graph of exactly this batch is none.

        It never waits. What is given is turned into text by another thread, so it must not
        change: numbers, texts and frozen objects.
        """
        if action is Action.REPLAY and reason is Reason.EXACT:
            return
        if len(self._waiting) >= MAX_WAITING:
            self._too_many += 1
            return
        self._waiting.append((time.time_ns(), role, step, batch, action, reason, graph, group))

    def flush(self) -> None:
        """Write what waits, now. Not for a step."""
        with self._writing:
            self._write()

    def close(self) -> None:
        """Write what waits and close the file; a disk that does not take it is given two seconds.

        In a forked child, nothing: the file is its parent's.
        """
        if self._pid != os.getpid() or self._ends.is_set():
            return
        self._ends.set()
        self._thread.join(EXIT_SECONDS)
        if not self._thread.is_alive():
            self.flush()
            os.close(self._descriptor)
            # Its number may soon be that of another file.
            self._descriptor = -1

    def leave(self) -> None:
        """Leave the file to the parent: this is a forked child."""
        os.close(self._descriptor)

    def _run(self) -> None:
        while not self._ends.wait(WRITE_SECONDS):
            self.flush()

    def _write(self) -> None:
        waiting = [self._waiting.popleft() for _ in range(len(self._waiting))]
        dropped = self.dropped
        lines = [*map(self._line, waiting)]
        if dropped > self._told_dropped:
            lines.append(self._encode(Dropped(_when(time.time_ns()), *self._who, dropped)))
        content = b"".join(lines)
        if self._size + len(content) > MAX_FILE_BYTES:
            self._lose(len(waiting), f"it has reached {MAX_FILE_BYTES:,} bytes")
            return
        try:
            written = 0
            while written < len(content):
                written += os.pwrite(self._descriptor, content[written:], self._size + written)
        except OSError as error:
            self._lose(len(waiting), str(error.strerror))
            return
        self._size += len(content)
        self._told_dropped = dropped

    def _lose(self, lines: int, why: str) -> None:
        """Count lines that could not be written. What was written of them is taken back."""
        self._lost += lines
        try:
            os.ftruncate(self._descriptor, self._size)
        except OSError as error:
            why += f"; it may end in half a line ({error.strerror})"
        if not self._warned:
            self._warned = True
            logger().warning("decisions are not written to %s: %s", self.path, why)

    @property
    def dropped(self) -> int:
        """How many decisions were not written."""
        return self._too_many + self._lost

    @property
    def _who(self) -> tuple[int, int]:
        return self.rank, self._pid

    def _line(self, given: _Waiting) -> bytes:
        nanoseconds, role, step, batch, action, reason, graph, group = given
        try:
            return self._encode(
                Line(
                    _when(nanoseconds),
                    *self._who,
                    role=_text(role) or "",
                    step=step,
                    batch=_text(batch) or "",
                    action=_text(action) or "",
                    reason=_text(reason) or "",
                    graph=_text(graph),
                    group=_text(group),
                )
            )
        except Exception:  # noqa: BLE001 - what a caller gives may be anything, and is one line
            self._lost += 1
            return b""

    def _encode(self, line: Line | Dropped) -> bytes:
        return self._encoder.encode(line) + b"\n"


_lock = threading.Lock()
_log: DecisionLog | None = None
_refused = False
_registered = False


def process_decisions() -> DecisionLog | None:
    """Return the decisions of this process, or None where ``GRAPHGUARD_DECISIONS`` asks for none.

    A forked child calls this again and gets a file of its own. Where none can be made, the log
    says so once.
    """
    global _log, _refused, _registered  # noqa: PLW0603
    if _log is not None or _refused:
        return _log
    target = environment.DECISIONS.value
    if target is None:
        return None
    with _lock:
        if _log is None and not _refused:
            try:
                _log = DecisionLog(target)
            except ConfigurationError as error:
                _refused = True
                logger().warning("%s", error)
                return None
            at_exit(_log.close)
            if not _registered:
                _registered = True
                os.register_at_fork(after_in_child=_forked)
    return _log


def _forked() -> None:
    global _lock, _log  # noqa: PLW0603
    _lock = threading.Lock()
    if _log is not None:
        _log.leave()
        _log = None


def _open(target: str, rank: int, pid: int) -> tuple[Path, int]:
    """Make the file of this process, and return its path and descriptor."""
    from pathlib import Path

    path = Path(target)
    if target.endswith("/") or path.is_dir():
        path /= "decisions.jsonl"
    flags = os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC
    try:
        with private_directory(path.parent, follow_links=True) as directory:
            # In a container every start of a program may have the same id.
            for duplicate in range(_MAX_DUPLICATES):
                more = f".{duplicate}" if duplicate else ""
                name = f"{path.stem}.rank{rank}.{pid}{more}{path.suffix}"
                try:
                    return path.with_name(name), os.open(name, flags, FILE_MODE, dir_fd=directory)
                except FileExistsError:
                    continue
        why = f"there are {_MAX_DUPLICATES:,} files of this rank and process"
    except GraphguardError as error:
        cause = error.__cause__
        why = f"{path.parent}: {cause.strerror}" if isinstance(cause, OSError) else error.message
    except OSError as error:
        why = str(error.strerror)
    raise ConfigurationError(
        f"no decisions are written: {why}",
        hint=f"set {environment.DECISIONS.name} to a directory of your own, with mode 700",
    )


def _when(nanoseconds: int) -> str:
    seconds, rest = divmod(nanoseconds, 10**9)
    moment = datetime.fromtimestamp(seconds, timezone.utc)
    return f"{moment:%Y-%m-%dT%H:%M:%S}.{rest // 1000:06d}Z"


def _text(value: object) -> str | None:
    return None if value is None else str(value)[:MAX_TEXT]
