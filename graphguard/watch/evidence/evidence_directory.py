"""A directory of evidence: private, bounded in size, and each file whole or absent."""

from __future__ import annotations

import os
import re
import stat
import threading
from contextlib import suppress
from pathlib import Path

import msgspec

from graphguard.blackbox.directory import DIRECTORY_MODE, FILE_MODE

_CREATE = os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC
_DIRECTORY = os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC
_MAX_NAMES = 100
_PART = ".part"
_NAME = re.compile(r"(?:[A-Za-z0-9][A-Za-z0-9._-]*/)?[A-Za-z0-9][A-Za-z0-9._-]*", re.ASCII)


class KeptFile(msgspec.Struct, frozen=True):
    """A file of the evidence: its name in the directory, its size, and what it is."""

    name: str
    bytes: int
    what: str


class NotKept(Exception):
    """Why something is not among the evidence."""


class EvidenceDirectory:
    """A new directory that files are put into, by several threads, until it is closed.

    Attributes:
        path: Where it is.
    """

    def __init__(self, path: Path, descriptor: int, max_bytes: int) -> None:
        self.path = path
        self._descriptor = descriptor
        self._left = max_bytes
        self._files: dict[str, KeptFile] = {}
        self._writers = 0
        self._lock = threading.Lock()
        self._sealed = False
        self._closed = False

    @classmethod
    def create(cls, parent: int, path: Path, max_bytes: int) -> EvidenceDirectory:
        """Make a directory of mode 0700 that was not there before.

        Args:
            parent: A descriptor of the directory that it is made in.
            path: Where it is to be. If there is one of that name, a number is added to it.
            max_bytes: How much may be put into it.

        Raises:
            OSError: If it cannot be made.
        """
        name = path.name
        for number in range(_MAX_NAMES):
            name = f"{path.name}.{number}" if number else path.name
            with suppress(FileExistsError):
                os.mkdir(name, DIRECTORY_MODE, dir_fd=parent)
                break
        descriptor = os.open(name, _DIRECTORY, dir_fd=parent)
        return cls(path.with_name(name), descriptor, max_bytes)

    def put(self, name: str, content: bytes, what: str) -> None:
        """Write a file of mode 0600.

        Args:
            name: With at most one directory before it, which is made if it is not there.
            content: All of it.
            what: What it is, for the index.

        Raises:
            NotKept: If there is no room left for it, if it came too late, or if the system refuses
                it.
        """
        if not _NAME.fullmatch(name):
            raise NotKept(f"{name!r} is no name for a file of evidence")
        self._begin(name, len(content))
        whole = False
        try:
            # Not under the lock: a disk may be slow, and the directory is closed in time.
            self._write(f"{name}{_PART}", content)
            whole = True
        except OSError as error:
            raise NotKept(f"{name} cannot be written: {error.strerror}") from error
        finally:
            self._end(name, KeptFile(name, len(content), what), whole=whole)

    def seal(self) -> tuple[KeptFile, ...]:
        """Take nothing more, and return what has been put into it."""
        with self._lock:
            self._sealed = True
            return tuple(sorted(self._files.values(), key=lambda file: file.name))

    def close(self, last: dict[str, bytes]) -> None:
        """Take nothing more but these files, which do not count.

        Raises:
            OSError: If they cannot be written.
        """
        self.seal()
        try:
            for name, content in last.items():
                self._write(name, content)
        finally:
            with self._lock:
                self._closed = True
                self._close_if_idle()

    def _begin(self, name: str, size: int) -> None:
        with self._lock:
            if self._sealed:
                raise NotKept(f"{name} came too late")
            if name in self._files:
                raise NotKept(f"{name} is there already")
            if size > self._left:
                raise NotKept(f"{name} has {size:,} bytes, and there is room for {self._left:,}")
            self._left -= size
            self._writers += 1

    def _end(self, name: str, file: KeptFile, *, whole: bool) -> None:
        with self._lock:
            self._writers -= 1
            part = f"{name}{_PART}"
            try:
                if whole and not self._sealed:
                    os.rename(part, name, src_dir_fd=self._descriptor, dst_dir_fd=self._descriptor)
                    self._files[name] = file
                    return
                self._left += file.bytes
                with suppress(FileNotFoundError):
                    os.unlink(part, dir_fd=self._descriptor)
            finally:
                self._close_if_idle()
        if whole:
            raise NotKept(f"{name} came too late")

    def _close_if_idle(self) -> None:
        # Who still writes needs the descriptor; its number may be that of another file else.
        if self._closed and not self._writers and self._descriptor >= 0:
            os.close(self._descriptor)
            self._descriptor = -1

    def _write(self, name: str, content: bytes) -> None:
        directory, _, file = name.rpartition("/")
        if not directory:
            self._write_in(self._descriptor, file, content)
            return
        with suppress(FileExistsError):
            os.mkdir(directory, DIRECTORY_MODE, dir_fd=self._descriptor)
        opened = os.open(directory, _DIRECTORY, dir_fd=self._descriptor)
        try:
            self._write_in(opened, file, content)
        finally:
            os.close(opened)

    def _write_in(self, directory: int, file: str, content: bytes) -> None:
        descriptor = os.open(file, _CREATE, FILE_MODE, dir_fd=directory)
        try:
            with open(descriptor, "wb", buffering=0, closefd=False) as stream:
                view = memoryview(content)
                while view:
                    view = view[stream.write(view) or 0 :]
        except OSError:
            os.unlink(file, dir_fd=directory)
            raise
        finally:
            os.close(descriptor)


def read_regular(path: str | Path, max_bytes: int, *, from_end: bool = False) -> bytes:
    """Read a regular file, and no link to one, that has at most so many bytes.

    Args:
        path: The file.
        max_bytes: How many.
        from_end: Read the last bytes of a larger file, instead of refusing it.

    Raises:
        NotKept: If it is no such file, or cannot be read.
    """
    try:
        descriptor = os.open(path, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC)
    except OSError as error:
        raise NotKept(f"{path}: {error.strerror}") from error
    try:
        status = os.fstat(descriptor)
        if not stat.S_ISREG(status.st_mode):
            raise NotKept(f"{path} is not a regular file")
        if status.st_size > max_bytes and not from_end:
            raise NotKept(f"{path} has {status.st_size:,} bytes, and {max_bytes:,} are kept")
        return _read(descriptor, max(0, status.st_size - max_bytes), max_bytes)
    except OSError as error:
        raise NotKept(f"{path}: {error.strerror}") from error
    finally:
        os.close(descriptor)


def _read(descriptor: int, begin: int, max_bytes: int) -> bytes:
    blocks = []
    left = max_bytes
    while left:
        block = os.pread(descriptor, min(left, 2**20), begin)
        if not block:
            break
        blocks.append(block)
        begin += len(block)
        left -= len(block)
    return b"".join(blocks)
