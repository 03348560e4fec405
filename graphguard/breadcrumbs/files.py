"""The names of files of breadcrumbs, and which of them may go."""

from __future__ import annotations

import os
import re
from contextlib import suppress
from pathlib import Path

from graphguard.blackbox.directory import is_held

FILE_PATTERN = "breadcrumbs.rank*.crumbs"

_FILE_NAME = re.compile(r"breadcrumbs\.rank(\d+)\.(\d+)(\.\d+)?\.crumbs", re.ASCII)
_RING_NAME = re.compile(r"blackbox\.rank(\d+)\.(\d+)(\.\d+)?\.ring", re.ASCII)


def file_name(rank: int, pid: int, duplicate: int = 0) -> str:
    """Return the name of a file of breadcrumbs.

    Args:
        rank: Global rank of the process, as far as it was known when the file was opened.
        pid: Its id.
        duplicate: Tells files of one rank and id apart.
    """
    return f"breadcrumbs.rank{rank}.{pid}{f'.{duplicate}' if duplicate else ''}.crumbs"


def is_crumb_name(name: str) -> bool:
    """Return whether a file of this name holds breadcrumbs."""
    return _FILE_NAME.fullmatch(name) is not None


def beside(ring: str | os.PathLike[str]) -> Path | None:
    """Return the file of breadcrumbs of the process that a black box is of, or None.

    A process may have opened one of them before it knew its rank, so its id decides; of several
    files, as a container makes them where every process has the same id, the newest.
    """
    path = Path(ring)
    match = _RING_NAME.fullmatch(path.name)
    if match is None:
        return None
    found: list[tuple[bool, int, Path]] = []
    with suppress(OSError):
        for entry in os.scandir(path.parent):
            named = _FILE_NAME.fullmatch(entry.name)
            if named is None or named[2] != match[2] or not entry.is_file(follow_symlinks=False):
                continue
            changed = entry.stat(follow_symlinks=False).st_ctime_ns
            found.append((named[1] == match[1], changed, Path(entry.path)))
    return max(found)[2] if found else None


def remove_old(directory: Path, kept: int) -> None:
    """Remove the files of processes that are gone, all but the newest."""
    gone: list[tuple[int, str]] = []
    for name in filter(is_crumb_name, os.listdir(directory)):
        with suppress(OSError):  # it was removed by another process meanwhile, or is no file
            flags = os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC
            descriptor = os.open(directory / name, flags)
            try:
                if is_held(descriptor) is False:
                    gone.append((os.fstat(descriptor).st_mtime_ns, name))
            finally:
                os.close(descriptor)
    for _, name in sorted(gone, reverse=True)[kept:]:
        with suppress(FileNotFoundError):
            os.unlink(directory / name)
