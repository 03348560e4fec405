"""The black box of this process."""

from __future__ import annotations

import os
import threading
import weakref
from typing import TYPE_CHECKING

from graphguard import environment, log
from graphguard._core import BlackBox as Ring
from graphguard.at_exit import at_exit
from graphguard.blackbox import directory as rings
from graphguard.blackbox.events import NO_NAME, NOT_SET, Event
from graphguard.errors import BlackBoxError, GraphguardError
from graphguard.session import process_rank

if TYPE_CHECKING:
    from pathlib import Path

    from graphguard.batch import BatchDescriptor
    from graphguard.verdict import Verdict

MAX_RANK = 2**32 - 1
MAX_DUPLICATES = 1_000
"""How many rings of one rank and process id may be in a directory."""

_BYTES_BEFORE_RECORDS = 4096 + 128 * 128
_RECORD_BYTES = 64


class BlackBox:
    """A ring of records in a file that outlives the process.

    Attributes:
        path: The file.
        ring: The native ring, for paths that are taken in every step: its ``check`` and ``mark``
            take numbers only. They are in ``graphguard/_core.pyi``.
    """

    def __init__(self, path: Path, ring: Ring, lock: int) -> None:
        self.path = path
        self.ring = ring
        self._lock = lock
        self._closed = False
        _boxes.add(self)

    def record(
        self,
        event: Event,
        *,
        role: str = "",
        group: str = "",
        step: int = 0,
        digest: int = 0,
        batch: BatchDescriptor | None = None,
        verdict: Verdict | None = None,
        peer: int | None = None,
        flags: int = 0,
        detail: int = 0,
    ) -> None:
        """Write a record, of what does not happen in every step.

        Args:
            event: What happened.
            role: Of the graph it is about.
            group: The name of the group of ranks.
            step: The step in that group; 0 for what belongs to no step.
            digest: The first 64 bits of the digest of what is launched.
            batch: The batch, or the one of the graph.
            verdict: What was decided about it.
            peer: The other rank.
            flags: Of :class:`Flag`.
            detail: What the event defines.
        """
        self.ring.record(
            event,
            self.name(role),
            self.name(group),
            step,
            digest,
            batch.num_reqs if batch else 0,
            batch.query_len if batch else 0,
            batch.num_tokens if batch else 0,
            batch.phase if batch else NOT_SET,
            verdict.action if verdict else NOT_SET,
            verdict.reason if verdict else NOT_SET,
            NO_NAME if peer is None else peer,
            flags,
            detail,
        )

    def note(self, text: str, *, group: str = "", step: int = 0, detail: int = 0) -> None:
        """Write a text of up to 120 bytes. There is room for about a hundred different ones."""
        self.record(Event.NOTE, role=text, group=group, step=step, detail=detail)

    def name(self, text: str) -> int:
        """Return the number that stands for a name in a record, always the same for one name."""
        return self.ring.name(text) if text else NO_NAME

    def close(self) -> None:
        """Write that the process ends. What comes after it is still recorded."""
        if not self._closed:
            self._closed = True
            self.record(Event.CLOSED)

    def disown(self) -> None:
        """Write no more: this is a child after a fork, and the ring is its parent's."""
        self.ring.disown()
        self._closed = True
        if self._lock >= 0:
            os.close(self._lock)
            self._lock = -1


def open_box(directory: Path, entries: int) -> BlackBox:
    """Open a new black box for this process in a directory.

    The file has its full size at once: a disk that fills up later does not matter to it.

    Args:
        directory: Where; made with mode 0700 if it is not there.
        entries: How many records to keep, rounded up to a power of two.

    Raises:
        BlackBoxError: If others may write to the directory, if the disk is full, or if the system
            refuses it for another reason.
    """
    return _open(directory, entries, follow_links=True, tidy=False)


def process_box() -> BlackBox | None:
    """Return the black box of this process, opened by the first call.

    It lies in ``GRAPHGUARD_DIR``, or else in a directory of the user. Its rank is what is known
    at that call: of torch.distributed, or of RANK.

    Returns:
        None if ``GRAPHGUARD_RING_ENTRIES`` is 0, or if it cannot be opened. Why not is logged,
        once.
    """
    return _process.box()


class _ProcessBox:
    """The black box of this process, if it has been asked for and could be opened."""

    def __init__(self) -> None:
        self._opening = threading.Lock()
        self._box: BlackBox | None = None
        self._failed = False

    def box(self) -> BlackBox | None:
        if self._box is not None or self._failed:
            return self._box
        with self._opening:
            if self._box is None and not self._failed:
                self._open()
            return self._box

    def _open(self) -> None:
        try:
            entries = environment.ring_entries()
            if entries == 0:
                return
            directory = environment.directory()
            self._box = _open(
                directory or rings.default_directory(),
                entries,
                follow_links=directory is not None,
                tidy=directory is None,
            )
        except Exception as error:  # noqa: BLE001 - a program does not end for want of a black box
            self._failed = True
            reason = error.message if isinstance(error, GraphguardError) else repr(error)
            log.logger().warning("this process has no black box: %s", reason)
            return
        log.logger().info("the black box of this process is %s", self._box.path)
        at_exit(self._box.close)


def _open(directory: Path, entries: int, *, follow_links: bool, tidy: bool) -> BlackBox:
    capacity = _capacity(entries)
    rank, world_size = process_rank()
    if rank > MAX_RANK or world_size > MAX_RANK:
        raise BlackBoxError(
            f"rank {rank} of {world_size} does not fit into a black box",
            hint="check the environment variables RANK and WORLD_SIZE",
        )
    with rings.private_directory(directory, follow_links=follow_links) as opened:
        try:
            name, descriptor = _created(opened, rank)
            with os.fdopen(descriptor, "r+b", buffering=0):
                ring, lock = _filled(opened, name, descriptor, (rank, world_size, capacity))
        except OSError as error:
            raise rings.refused(directory, error) from error
        if tidy:
            rings.remove_old(opened)
    return BlackBox(directory / name, ring, lock)


def _filled(
    directory: int, name: str, descriptor: int, sizes: tuple[int, int, int]
) -> tuple[Ring, int]:
    """Make a ring of a new file; return it and a descriptor that holds it."""
    rank, world_size, capacity = sizes
    size = _BYTES_BEFORE_RECORDS + capacity * _RECORD_BYTES
    lock = -1
    try:
        # A description of its own: the mapping keeps the other one open, in forked children too.
        lock = os.open(name, os.O_RDONLY | os.O_NOFOLLOW | os.O_CLOEXEC, dir_fd=directory)
        rings.hold(lock)
        os.posix_fallocate(descriptor, 0, size)
        host = os.uname().nodename
        return Ring(descriptor, size, rank, world_size, os.getpid(), host, capacity), lock
    except BaseException:
        if lock >= 0:
            os.close(lock)
        os.unlink(name, dir_fd=directory)
        raise


def _created(directory: int, rank: int) -> tuple[str, int]:
    flags = os.O_RDWR | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC
    for duplicate in range(MAX_DUPLICATES):
        name = rings.file_name(rank, os.getpid(), duplicate)
        try:
            return name, os.open(name, flags, rings.FILE_MODE, dir_fd=directory)
        except FileExistsError as error:
            taken = error
    raise taken


def _capacity(entries: int) -> int:
    if not 0 < entries <= environment.MAX_RING_ENTRIES:
        raise BlackBoxError(
            f"a black box cannot keep {entries} records",
            hint=f"between 1 and {environment.MAX_RING_ENTRIES} can be kept",
        )
    return 1 << (entries - 1).bit_length()


def _after_fork() -> None:
    global _process  # noqa: PLW0603 - the child's is another one
    _process = _ProcessBox()
    for box in list(_boxes):
        box.disown()


_boxes: weakref.WeakSet[BlackBox] = weakref.WeakSet()
_process = _ProcessBox()
os.register_at_fork(after_in_child=_after_fork)
