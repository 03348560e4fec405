"""Files that hold what a process did: private, and whole or absent."""

from __future__ import annotations

import os
import stat
from typing import TYPE_CHECKING

from graphguard.errors import ManifestError

if TYPE_CHECKING:
    from pathlib import Path

DIRECTORY_MODE = 0o700
FILE_MODE = 0o600


def write_private(path: Path, content: bytes) -> None:
    """Write a file of mode 0600 in one step: readers see the old content or the new, no half.

    The directory is made with mode 0700 if it is not there.

    Raises:
        ManifestError: If the directory belongs to somebody else or others may write to it, or if
            the system refuses the write.
    """
    try:
        path.parent.mkdir(mode=DIRECTORY_MODE, parents=True, exist_ok=True)
        directory = os.open(path.parent, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    except OSError as error:
        raise _refused(path, error) from error
    try:
        _require_private(directory, path.parent)
        _replace(directory, path.name, content)
    except OSError as error:
        raise _refused(path, error) from error
    finally:
        os.close(directory)


def read_bounded(path: Path, max_bytes: int) -> bytes:
    """Read a regular file of at most ``max_bytes``.

    Raises:
        ManifestError: If it is missing, no regular file, or larger.
    """
    try:
        # A FIFO would block the opening itself; O_NONBLOCK does not matter to a regular file.
        descriptor = os.open(path, os.O_RDONLY | os.O_CLOEXEC | os.O_NONBLOCK)
        try:
            if not stat.S_ISREG(os.fstat(descriptor).st_mode):
                raise ManifestError(f"{path} is not a regular file", hint="name a manifest file")
            with open(descriptor, "rb", closefd=False) as file:
                content = file.read(max_bytes + 1)
        finally:
            os.close(descriptor)
    except OSError as error:
        raise ManifestError(
            f"cannot read {path}: {error.strerror}", hint="check the path and its permissions"
        ) from error
    if len(content) > max_bytes:
        raise ManifestError(
            f"{path} is larger than the {max_bytes:,} bytes that a manifest may have",
            hint="is it a manifest? graphguard writes manifest.rank<N>.json",
        )
    return content


def _require_private(directory: int, path: Path) -> None:
    status = os.fstat(directory)
    if status.st_uid != os.geteuid() or status.st_mode & 0o022:
        raise ManifestError(
            f"{path} belongs to user {status.st_uid} with mode {stat.S_IMODE(status.st_mode):o}; "
            "others could replace what is written there",
            hint=f"use a directory of your own: chmod 700 {path}, or set GRAPHGUARD_DIR elsewhere",
        )


def _replace(directory: int, name: str, content: bytes) -> None:
    temporary = f".{name}.{os.urandom(8).hex()}"
    flags = os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC
    descriptor = os.open(temporary, flags, FILE_MODE, dir_fd=directory)
    try:
        with open(descriptor, "wb") as file:
            file.write(content)
            file.flush()
            os.fsync(descriptor)
        os.rename(temporary, name, src_dir_fd=directory, dst_dir_fd=directory)
    except BaseException:
        os.unlink(temporary, dir_fd=directory)
        raise


def _refused(path: Path, error: OSError) -> ManifestError:
    return ManifestError(
        f"cannot write {path}: {error.strerror}",
        hint="set GRAPHGUARD_DIR to a directory that this user can write to",
    )
