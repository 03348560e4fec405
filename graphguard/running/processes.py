"""Which Python processes of a run were reached: each leaves a note when it starts."""

from __future__ import annotations

import os
import re
import stat
from collections import Counter
from pathlib import Path

import msgspec

DIRECTORY = "processes"
"""The directory of the notes, in that of the run."""
MAX_NOTE_BYTES = 4_096
MAX_NOTES = 100_000

_NOTE = re.compile(r"process\.\d{1,10}", re.ASCII)


class Refusal(msgspec.Struct, frozen=True):
    """Python processes that could not load graphguard.

    Attributes:
        python: The interpreter.
        reason: Why not, in its words.
        count: How many processes.
    """

    python: str
    reason: str
    count: int


class Reached(msgspec.Struct, frozen=True):
    """The Python processes that a run has started.

    Attributes:
        loaded: How many have loaded graphguard.
        refused: Those that could not.
    """

    loaded: int
    refused: tuple[Refusal, ...] = ()


def read(directory: Path) -> Reached:
    """Read the notes of a run. One that cannot be read counts as a process that was not reached."""
    loaded = 0
    refused: Counter[tuple[str, str]] = Counter()
    for name in sorted(filter(_NOTE.fullmatch, os.listdir(directory)))[:MAX_NOTES]:
        python, reason = _note(directory / name)
        if reason:
            refused[python, reason] += 1
        else:
            loaded += 1
    return Reached(
        loaded,
        tuple(Refusal(python, reason, count) for (python, reason), count in refused.items()),
    )


def _note(path: Path) -> tuple[str, str]:
    try:
        descriptor = os.open(path, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC)
        try:
            if not stat.S_ISREG(os.fstat(descriptor).st_mode):
                return "", "its note is not a file"
            content = os.read(descriptor, MAX_NOTE_BYTES)
        finally:
            os.close(descriptor)
    except OSError as error:
        return "", f"its note cannot be read: {error.strerror}"
    python, ended, rest = content.decode(errors="replace").partition("\n")
    return python, rest.partition("\n")[0] if ended else "its note is cut off"
