"""Where rings lie: a directory that nobody else can write to, and which of them may go."""

from __future__ import annotations

import fcntl
import os
import re
import stat
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from typing import TYPE_CHECKING

from graphguard.errors import BlackBoxError

if TYPE_CHECKING:
    from pathlib import Path

DIRECTORY_MODE = 0o700
FILE_MODE = 0o600

FILE_PATTERN = "blackbox.rank*.ring"
KEPT_RINGS = 32
"""How many rings of processes that are gone stay in the default directory."""

_FILE_NAME = re.compile(r"blackbox\.rank\d+\.\d+(\.\d+)?\.ring", re.ASCII)


def file_name(rank: int, pid: int, duplicate: int = 0) -> str:
    """Return the name of a ring.

    Args:
        rank: Global rank of the process.
        pid: Its id.
        duplicate: Tells rings of one rank and id apart. In a container every start of a program
            may have the same id.
    """
    return f"blackbox.rank{rank}.{pid}{f'.{duplicate}' if duplicate else ''}.ring"


def is_ring_name(name: str) -> bool:
    """Return whether a file of this name is a ring."""
    return _FILE_NAME.fullmatch(name) is not None


def stacks_name(name: str) -> str:
    """Return the name of the file that the process of a ring writes its stacks to."""
    return f"stacks{name.removeprefix('blackbox').removesuffix('.ring')}.txt"


def default_directory() -> Path:
    """Return the directory of this user's rings: of the session, or else under ``/tmp``."""
    # Not needed by programs without a black box, and slow to import.
    from pathlib import Path

    user = os.geteuid()
    runtime = os.environ.get("XDG_RUNTIME_DIR", "")
    if os.path.isabs(runtime):
        with suppress(OSError):
            status = os.stat(runtime)
            if stat.S_ISDIR(status.st_mode) and status.st_uid == user:
                return Path(runtime, "graphguard")
    # Not TMPDIR: all processes of a user share it. Its owner is checked before it is used.
    return Path(f"/tmp/graphguard-{user}")  # noqa: S108


@contextmanager
def private_directory(path: Path, *, follow_links: bool) -> Iterator[int]:
    """Open a directory, made with mode 0700 if it is not there.

    Raises:
        BlackBoxError: If it belongs to somebody else, if others may write to it, or if the system
            refuses it.
    """
    flags = os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC | (0 if follow_links else os.O_NOFOLLOW)
    try:
        path.mkdir(mode=DIRECTORY_MODE, parents=True, exist_ok=True)
        descriptor = os.open(path, flags)
    except OSError as error:
        raise refused(path, error) from error
    try:
        _require_private(descriptor, path)
        yield descriptor
    finally:
        os.close(descriptor)


def hold(descriptor: int) -> bool:
    """Lock a ring for as long as this process lives, and return whether that could be done.

    The kernel takes the lock away when the process ends, however it ends. That is how a reader
    knows; a process id may be that of another process by then, or of another container.
    """
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError:
        return False
    return True


def is_held(descriptor: int) -> bool | None:
    """Return whether a process holds a ring; None where the file system has no locks."""
    try:
        fcntl.flock(descriptor, fcntl.LOCK_SH | fcntl.LOCK_NB)
    except BlockingIOError:
        return True
    except OSError:
        return None
    fcntl.flock(descriptor, fcntl.LOCK_UN)
    return False


def remove_old(directory: int, kept: int = KEPT_RINGS) -> None:
    """Remove the rings of processes that are gone, and their stacks, all but the newest."""
    gone: list[tuple[int, str]] = []
    for name in filter(is_ring_name, os.listdir(directory)):
        with suppress(OSError):  # it was removed by another process meanwhile, or is no ring
            flags = os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC
            descriptor = os.open(name, flags, dir_fd=directory)
            try:
                if is_held(descriptor) is False:
                    gone.append((os.fstat(descriptor).st_mtime_ns, name))
            finally:
                os.close(descriptor)
    for _, name in sorted(gone, reverse=True)[kept:]:
        for each in (name, stacks_name(name)):
            with suppress(FileNotFoundError):
                os.unlink(each, dir_fd=directory)


def refused(path: Path, error: OSError) -> BlackBoxError:
    """Return the error for what the system refused."""
    return BlackBoxError(
        f"cannot open a black box in {path}: {error.strerror}",
        hint="set GRAPHGUARD_DIR to a directory that this user can write to, with space in it, or "
        "GRAPHGUARD_RING_ENTRIES=0 for no black box",
    )


def _require_private(descriptor: int, path: Path) -> None:
    status = os.fstat(descriptor)
    if status.st_uid != os.geteuid() or status.st_mode & 0o022:
        raise BlackBoxError(
            f"{path} belongs to user {status.st_uid} with mode {stat.S_IMODE(status.st_mode):o}; "
            "others could replace a black box there",
            hint=f"use a directory of your own: chmod 700 {path}, or set GRAPHGUARD_DIR elsewhere",
        )
