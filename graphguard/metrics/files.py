"""The files by which processes of a run show each other their counts.

Each process writes one, in a directory of the user's that nobody else can write to, and holds a
lock on it for as long as it lives. A file that nobody holds is that of a dead process.
"""

from __future__ import annotations

import os
import re
import stat
import time
from collections.abc import Iterator
from contextlib import suppress
from itertools import islice

from graphguard.blackbox.directory import (
    FILE_MODE,
    default_directory,
    hold,
    is_held,
    private_directory,
)
from graphguard.metrics.samples import MAX_FILE_BYTES, ProcessSamples, unpack

MAX_FILES = 512
"""How many processes of a run are read."""
YOUNG_SECONDS = 10.0
"""A file that nobody holds may be one that its process is about to lock."""
_ATTEMPTS = 3

_RUN = re.compile(r"[0-9a-f]{16}", re.ASCII)
_NAME = re.compile(r"metrics\.([0-9a-f]{16})\.\d{1,10}\.[0-9a-f]{8}\.samples", re.ASCII)


def new_run() -> str:
    """Return a name for a run: all processes whose counts are shown together."""
    return os.urandom(8).hex()


def is_run(name: str) -> bool:
    """Return whether this can be the name of a run."""
    return _RUN.fullmatch(name) is not None


class SampleFile:
    """The file of this process.

    Args:
        run: Which processes belong together.

    Raises:
        BlackBoxError: If the user's directory cannot be used.
        OSError: If the file cannot be made.
    """

    def __init__(self, run: str) -> None:
        self.name = f"metrics.{run}.{os.getpid()}.{os.urandom(4).hex()}.samples"
        flags = os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC
        self._directory = default_directory()
        with private_directory(self._directory, follow_links=False) as directory:
            self._descriptor = os.open(self.name, flags, FILE_MODE, dir_fd=directory)
            hold(self._descriptor)
            remove_dead(directory)

    def write(self, content: bytes) -> None:
        """Put this in the place of what the file holds. A reader that sees half of it knows."""
        if len(content) <= MAX_FILE_BYTES:
            os.pwrite(self._descriptor, content, 0)

    def forget(self) -> None:
        """Leave the file to the process that it was inherited from."""
        os.close(self._descriptor)

    def remove(self) -> None:
        """Take the file away: this process ends."""
        with suppress(OSError):
            os.unlink(self._directory / self.name)
        os.close(self._descriptor)


def read_run(run: str, besides: str | None = None) -> list[ProcessSamples]:
    """Return the counts of all living processes of a run.

    Args:
        run: Which run.
        besides: The name of a file that is left out: that of the reader.
    """
    found: list[ProcessSamples] = []
    with private_directory(default_directory(), follow_links=False) as directory:
        names = (name for name, its in _named(directory) if its == run and name != besides)
        for name in islice(names, MAX_FILES):
            with suppress(OSError):
                if (samples := _read(directory, name)) is not None:
                    found.append(samples)
    return found


def remove_dead(directory: int) -> None:
    """Remove the files of processes that are gone, of any run."""
    for name, _ in _named(directory):
        with suppress(OSError):
            descriptor = _open(directory, name)
            try:
                young = time.time() - os.fstat(descriptor).st_mtime < YOUNG_SECONDS
                if not young and is_held(descriptor) is False:
                    os.unlink(name, dir_fd=directory)
            finally:
                os.close(descriptor)


def _named(directory: int) -> Iterator[tuple[str, str]]:
    for name in os.listdir(directory):
        if match := _NAME.fullmatch(name):
            yield name, match[1]


def _open(directory: int, name: str) -> int:
    flags = os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC
    return os.open(name, flags, dir_fd=directory)


def _read(directory: int, name: str) -> ProcessSamples | None:
    descriptor = _open(directory, name)
    try:
        status = os.fstat(descriptor)
        if not stat.S_ISREG(status.st_mode) or status.st_uid != os.geteuid():
            return None
        if status.st_size > MAX_FILE_BYTES or is_held(descriptor) is False:
            return None
        # What is written meanwhile does not match its checksum, and is there a moment later.
        for _ in range(_ATTEMPTS):
            samples = unpack(os.pread(descriptor, MAX_FILE_BYTES, 0))
            if samples is not None:
                return samples
        return None
    finally:
        os.close(descriptor)
