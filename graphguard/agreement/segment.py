"""Shared memory for a ledger: a file in /dev/shm that only this user can open.

Its name is told to the other ranks and removed as soon as all have opened it, so that nothing is
left behind however the processes end. Each rank holds a lock on a byte of it; the kernel frees the
lock when the rank is gone, in whatever container or process namespace it ran.
"""

from __future__ import annotations

import contextlib
import errno
import fcntl
import os
import stat
import struct
import time

import msgspec

from graphguard import _core
from graphguard.digest import digest
from graphguard.errors import LedgerError

DIRECTORY = "/dev/shm"  # noqa: S108 - shared memory is what it is for; O_EXCL and the owner guard it
_PREFIX = "graphguard"
_FILE_MODE = 0o600
_FLAGS = os.O_RDWR | os.O_NOFOLLOW | os.O_CLOEXEC
_FLOCK = "hhqqi4x"
"""``struct flock`` of 64-bit Linux: type, whence, start, length, pid."""


_held: set[tuple[str, int]] = set()
"""Files and places that this process holds the locks of."""

_LEFT_BEHIND_SECONDS = 60.0
"""How old a file is at least that ranks have left behind. A new one may not be held yet."""


class SegmentName(msgspec.Struct, frozen=True):
    """Where a segment is, as the rank that made it tells the others.

    Attributes:
        file: Name of the file in ``/dev/shm``.
        token: A random number that is also written into the segment.
    """

    file: str
    token: int


class Segment:
    """An open segment. ``descriptor`` stays open: closing it would free this process's lock."""

    def __init__(self, descriptor: int, size: int, name: SegmentName) -> None:
        self.descriptor = descriptor
        self.size = size
        self.name = name

    @property
    def job(self) -> str:
        """What all ranks that share it may call themselves, in files that others can see."""
        return digest([self.name.file.encode()])[:12]

    @classmethod
    def create(cls, num_ranks: int) -> Segment:
        """Make the segment of a new ledger.

        Raises:
            LedgerError: If the system refuses it, or there is no room for it.
        """
        _sweep()
        size = _core.ledger_bytes(num_ranks)
        token = int.from_bytes(os.urandom(8), "little")
        name = SegmentName(f"{_PREFIX}-{os.geteuid()}-{token:016x}", token)
        try:
            descriptor = os.open(
                os.path.join(DIRECTORY, name.file), _FLAGS | os.O_CREAT | os.O_EXCL, _FILE_MODE
            )
        except OSError as error:
            raise _refused("cannot be made", error) from error
        segment = cls(descriptor, size, name)
        try:
            segment.hold(0)
            # Pages that are not there when they are written to end the process with SIGBUS.
            os.posix_fallocate(descriptor, 0, size)
            _core.initialise_ledger(descriptor, size, num_ranks, token)
        except Exception as error:
            segment.remove_name()
            os.close(descriptor)
            raise _refused(f"of {size:,} bytes cannot be filled", error) from error
        return segment

    @classmethod
    def open(cls, name: SegmentName, num_ranks: int) -> Segment:
        """Open the segment that another rank has made.

        Raises:
            LedgerError: If it is not there, is not this user's own, or has another size.
        """
        if os.sep in name.file or not name.file.startswith(f"{_PREFIX}-"):
            raise LedgerError(
                f"{name.file!r} is no name of a ledger", hint="use one version on all ranks"
            )
        try:
            descriptor = os.open(os.path.join(DIRECTORY, name.file), _FLAGS)
        except OSError as error:
            raise _refused("cannot be opened", error) from error
        segment = cls(descriptor, _core.ledger_bytes(num_ranks), name)
        try:
            segment._require_ours()
        except LedgerError:
            os.close(descriptor)
            raise
        return segment

    def hold(self, rank: int) -> None:
        """Hold the lock that says that a rank is alive, until this process ends."""
        try:
            fcntl.lockf(self.descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB, 1, rank)
        except OSError as error:
            raise LedgerError(
                f"the place of local rank {rank} in the ledger is taken by a living process",
                hint="give every process of the group a rank of its own",
            ) from error
        _held.add((self.name.file, rank))

    def held(self, rank: int) -> bool:
        """Whether a process holds the lock of a rank."""
        if (self.name.file, rank) in _held:
            # The kernel does not tell a process of its own locks.
            return True
        asked = struct.pack(_FLOCK, fcntl.F_WRLCK, os.SEEK_SET, rank, 1, 0)
        answer = fcntl.fcntl(self.descriptor, fcntl.F_GETLK, asked)
        return bool(struct.unpack(_FLOCK, answer)[0] != fcntl.F_UNLCK)

    def close(self) -> None:
        """Let go of the segment, and of the lock that says that this process is alive."""
        os.close(self.descriptor)
        _held.difference_update([held for held in _held if held[0] == self.name.file])

    def remove_name(self) -> None:
        """Remove the name. Whoever has opened the segment keeps it."""
        with contextlib.suppress(FileNotFoundError):
            os.unlink(os.path.join(DIRECTORY, self.name.file))

    def _require_ours(self) -> None:
        status = os.fstat(self.descriptor)
        if not stat.S_ISREG(status.st_mode) or status.st_uid != os.geteuid():
            raise LedgerError(
                f"{self.name.file} belongs to user {status.st_uid}",
                hint="run all ranks as one user",
            )
        if status.st_mode & 0o077:
            raise LedgerError(
                f"{self.name.file} is open to others (mode {stat.S_IMODE(status.st_mode):o})",
                hint="nobody but graphguard may make such files; look who did",
            )
        if status.st_size != self.size:
            raise LedgerError(
                f"{self.name.file} has {status.st_size:,} bytes and not {self.size:,}",
                hint="use one version of graphguard on all ranks",
            )


os.register_at_fork(after_in_child=_held.clear)


def _sweep() -> None:
    """Remove what ranks have left behind that died before all others had opened their segment."""
    mine = f"{_PREFIX}-{os.geteuid()}-"
    try:
        names = [name for name in os.listdir(DIRECTORY) if name.startswith(mine)]
    except OSError:
        return
    # Closing another descriptor of a file would free the locks that this process holds.
    own = {file for file, _ in _held}
    for name in names:
        path = os.path.join(DIRECTORY, name)
        try:
            if name in own or time.time() - os.lstat(path).st_mtime < _LEFT_BEHIND_SECONDS:
                continue
            descriptor = os.open(path, _FLAGS)
        except OSError:
            continue
        try:
            if not Segment(descriptor, 0, SegmentName(name, 0)).held(0):
                os.unlink(path)
        except OSError:
            continue
        finally:
            os.close(descriptor)


def _refused(what: str, error: Exception) -> LedgerError:
    if isinstance(error, LedgerError):
        return error
    full = isinstance(error, OSError) and error.errno in (errno.ENOSPC, errno.ENOMEM)
    reason = error.strerror if isinstance(error, OSError) else str(error)
    return LedgerError(
        f"the ledger in {DIRECTORY} {what}: {reason}",
        hint=f"{DIRECTORY} is full: give the container more (docker run --shm-size)"
        if full
        else f"this user must be able to make files in {DIRECTORY}",
    )
