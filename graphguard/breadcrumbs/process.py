"""The breadcrumbs of this process: a file beside its black box."""

from __future__ import annotations

import os
import threading
from contextlib import suppress
from typing import TYPE_CHECKING

from graphguard import _core, environment
from graphguard.blackbox import directory as rings
from graphguard.breadcrumbs import files
from graphguard.breadcrumbs.telling import tell
from graphguard.errors import GraphguardError
from graphguard.log import logger
from graphguard.session import process_rank

if TYPE_CHECKING:
    from pathlib import Path

MAX_DUPLICATES = 1_000
"""How many files of one rank and process id may be in a directory."""

KEPT_FILES = 16
"""How many files of processes that are gone stay in the default directory."""


class Breadcrumbs:
    """A file of breadcrumbs that outlives the process.

    Attributes:
        path: The file.
        native: What writes it.
    """

    def __init__(self, path: Path, native: _core.Breadcrumbs, lock: int) -> None:
        self.path = path
        self.native = native
        self._lock = lock

    def disown(self) -> None:
        """Write no more: this is a child after a fork, and the file is its parent's."""
        self.native.disown()
        if self._lock >= 0:
            os.close(self._lock)
            self._lock = -1


def wanted() -> bool:
    """Whether captured graphs get marks; a setting that cannot be meant counts as no."""
    try:
        return environment.breadcrumbs_wanted()
    except GraphguardError as error:
        tell("setting", error.message)
        return False


def process_breadcrumbs() -> Breadcrumbs | None:
    """Return the breadcrumbs of this process, opened by the first call.

    They lie where its black box does. Their rank is what is known at that call.

    Returns:
        None if they cannot be opened. Why not is logged, once.
    """
    return _process.opened()


def open_breadcrumbs(directory: Path, *, follow_links: bool = True) -> Breadcrumbs:
    """Open a new file of breadcrumbs for this process in a directory.

    Raises:
        BlackBoxError: If others may write to the directory, if the disk is full, or if the system
            refuses it for another reason.
    """
    with rings.private_directory(directory, follow_links=follow_links) as opened:
        try:
            return _created(directory, opened)
        except OSError as error:
            raise rings.refused(directory, error) from error


def _created(path: Path, directory: int) -> Breadcrumbs:
    rank, world_size = process_rank()
    name, descriptor = _new_file(directory, rank)
    lock = -1
    try:
        # A description of its own: the mapping keeps the other one open, in forked children too.
        lock = os.open(name, os.O_RDONLY | os.O_NOFOLLOW | os.O_CLOEXEC, dir_fd=directory)
        rings.hold(lock)
        os.posix_fallocate(descriptor, 0, _core.BREADCRUMB_BYTES)
        host = os.uname().nodename
        native = _core.Breadcrumbs(descriptor, rank, world_size, os.getpid(), host)
    except BaseException:
        if lock >= 0:
            os.close(lock)
        os.unlink(name, dir_fd=directory)
        raise
    finally:
        os.close(descriptor)
    return Breadcrumbs(path / name, native, lock)


def _new_file(directory: int, rank: int) -> tuple[str, int]:
    flags = os.O_RDWR | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC
    for duplicate in range(MAX_DUPLICATES):
        name = files.file_name(rank, os.getpid(), duplicate)
        try:
            return name, os.open(name, flags, rings.FILE_MODE, dir_fd=directory)
        except FileExistsError as error:
            taken = error
    raise taken


class _Process:
    """The breadcrumbs of this process, if they have been asked for and could be opened."""

    def __init__(self) -> None:
        self.current: Breadcrumbs | None = None
        self._opening = threading.Lock()
        self._failed = False

    def opened(self) -> Breadcrumbs | None:
        with self._opening:
            if self.current is None and not self._failed:
                self._open()
            return self.current

    def _open(self) -> None:
        try:
            chosen = environment.directory()
            directory = chosen or rings.default_directory()
            self.current = open_breadcrumbs(directory, follow_links=chosen is not None)
            if chosen is None:
                _tidy(directory)
        except Exception as error:  # noqa: BLE001 - the program's capture goes first
            self._failed = True
            reason = error.message if isinstance(error, GraphguardError) else repr(error)
            tell("file", reason)
            return
        logger().info("the breadcrumbs of this process are %s", self.current.path)


def _tidy(directory: Path) -> None:
    with suppress(OSError):
        files.remove_old(directory, KEPT_FILES)


def _after_fork() -> None:
    global _process
    before, _process = _process, _Process()
    if before.current is not None:
        before.current.disown()


_process = _Process()
os.register_at_fork(after_in_child=_after_fork)
