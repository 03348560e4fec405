"""The last lines of an engine's log, without prompts and token ids.

Only lines that a logger or a traceback wrote are kept; what a program printed by itself may be
anything. In those lines, texts and lists of numbers go unless they are known to be something else.
"""

from __future__ import annotations

import os
import stat
from collections.abc import Iterable
from pathlib import Path
from typing import NamedTuple

from graphguard.watch.evidence.evidence_directory import NotKept
from graphguard.watch.evidence.log_lines import safe_line, wanted
from graphguard.watch.evidence.redaction import Redactor

MAX_BYTES = 256 * 1024
"""Of each log, from its end."""

MAX_LINES = 500
MAX_LOGS = 16


class Tail(NamedTuple):
    """The end of a log: where it is, what it said, and how many lines of it are left out."""

    source: str
    lines: list[str]
    left_out: int


def tails(pids: Iterable[int], log: str, redactor: Redactor) -> tuple[list[Tail], list[str]]:
    """Return the ends of the logs of processes, and why others are not there.

    Args:
        pids: The processes. What their output goes to is a log if it is a regular file.
        log: The log that was named; it is taken instead.
        redactor: Takes out what is secret.
    """
    found: list[Tail] = []
    problems: list[str] = []
    seen: set[tuple[int, int]] = set()
    sources = [(log, log)] if log else _outputs(pids)
    for source, path in sources:
        try:
            content = _end_of(path, seen)
        except NotKept as why:
            problems.append(f"{source}: {why}")
            continue
        if content is not None:
            found.append(_tail(source, content, redactor))
        if len(found) >= MAX_LOGS:
            problems.append(f"there are more than {MAX_LOGS} logs")
            break
    return found, list(dict.fromkeys(problems))


def as_text(found: Iterable[Tail]) -> str:
    """Return the ends of logs as one text. Notes between the lines begin with ``#``."""
    parts = []
    for tail in found:
        parts.append(f"# the end of {tail.source}\n")
        parts.extend(f"{line}\n" for line in tail.lines)
        if tail.left_out:
            parts.append(f"# {tail.left_out} line(s) that no logger wrote are left out\n")
    return "".join(parts)


def _outputs(pids: Iterable[int]) -> list[tuple[str, str]]:
    return [
        (f"descriptor {number} of process {pid}", f"/proc/{pid}/fd/{number}")
        for pid in pids
        for number in (1, 2)
    ]


def _end_of(path: str, seen: set[tuple[int, int]]) -> bytes | None:
    """Return the last bytes of a log; None if it was read already."""
    try:
        # Looked at before it is opened: opening a pipe or a terminal may do something.
        status = os.stat(path)
        if not stat.S_ISREG(status.st_mode):
            raise NotKept("it goes to no regular file")
        if (status.st_dev, status.st_ino) in seen:
            return None
        seen.add((status.st_dev, status.st_ino))
        descriptor = os.open(path, os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC)
    except OSError as error:
        raise NotKept(error.strerror or str(error)) from error
    try:
        begin = max(0, os.fstat(descriptor).st_size - MAX_BYTES)
        content = os.pread(descriptor, MAX_BYTES, begin)
    except OSError as error:
        raise NotKept(error.strerror or str(error)) from error
    finally:
        os.close(descriptor)
    # The first line is cut, and what a cut line is about cannot be known.
    return content.partition(b"\n")[2] if begin else content


def _tail(source: str, content: bytes, redactor: Redactor) -> Tail:
    lines = content.decode("utf-8", "replace").split("\n")
    if not lines[-1]:
        lines.pop()
    kept: list[str] = []
    left_out = 0
    before = ""
    for line in lines[-MAX_LINES:]:
        if wanted(line, before):
            kept.append(redactor.text(safe_line(line)))
            before = line
        else:
            left_out += 1
            before = ""
    return Tail(_shown(source), kept, left_out)


def _shown(source: str) -> str:
    return str(Path(source)) if source.startswith("/") else source
