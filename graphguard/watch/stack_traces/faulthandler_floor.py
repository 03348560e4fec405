"""Python stacks where nothing may read another process: each one writes its own when it is asked.

A guarded process registers Python's own faulthandler on a real-time signal that nobody uses, with
a file beside its black box. Its pulse says which signal and which file. The handler is C code that
needs no GIL, so a process that spins in C while it holds the GIL answers, too. One that is stopped,
or that the kernel does not let go of, answers nothing.
"""

from __future__ import annotations

import errno
import faulthandler
import os
import re
import signal
import stat
import threading
import time
from contextlib import suppress
from pathlib import Path
from typing import IO, TYPE_CHECKING

import msgspec

from graphguard.blackbox.directory import FILE_MODE, is_held, stacks_name
from graphguard.watch.stack_traces.stack_model import Frame, ThreadStack, ordered

if TYPE_CHECKING:
    from graphguard.blackbox.writer import BlackBox

MAX_FILE_BYTES = 2**20
"""How large a file of stacks may be before it is emptied for the next ones."""

MAX_ANSWER_BYTES = 4 * 2**20
_POLL_SECONDS = 0.005
_QUIET_SECONDS = 0.03
"""A file that has not grown for so long is whole."""

_HEAD = "graphguard stacks 1 main=0x{ident:016x} tid={tid}\n"
_HEAD_LINE = re.compile(rb"graphguard stacks 1 main=0x([0-9a-f]{16}) tid=(\d{1,10})\n")
_THREAD = re.compile(
    r"(?:Current t|T)hread 0x([0-9a-f]{1,16})(?: \[(.*?)\])? \(most recent call fi"
)
_FRAME = re.compile(r'  File "(.*)", line (\d{1,9}|\?\?\?) in (.*)$')
_NAME = re.compile(r"stacks\.rank\d+\.\d+(\.\d+)?\.txt", re.ASCII)


class Registered(msgspec.Struct, frozen=True):
    """On which signal a process answers, and into which file in the directory of its ring."""

    signal: int
    file: str


class NoAnswer(Exception):
    """Why a process was not asked, or did not answer."""


def register(box: BlackBox) -> Registered | None:
    """Let this process answer when it is asked for its stacks.

    Returns:
        None if no signal is free, or the file cannot be made. The program goes on without.
    """
    number = _free_signal()
    if number is None:
        return None
    try:
        name, file = _create(box.path)
        ident = threading.main_thread().ident or 0
        file.write(_HEAD.format(ident=ident, tid=os.getpid()).encode("ascii"))
        # Without chain, system calls that the signal interrupts are taken up again.
        faulthandler.register(number, file, all_threads=True, chain=False)
    except (OSError, ValueError, RuntimeError, AttributeError):
        return None
    _open_files.append(file)
    box.ring.set_stacks(number, box.name(name))
    return Registered(number, name)


def ask(pid: int, ring: Path, registered: Registered, seconds: float) -> bytes:
    """Have a process write its stacks, and return what it wrote.

    The signal is sent only to a process that holds the ring, has the file open and catches the
    signal: it would end any other.

    Args:
        pid: The process.
        ring: Its black box.
        registered: What its pulse says.
        seconds: How long to wait for the answer.

    Raises:
        NoAnswer: Why there is none.
    """
    until = time.monotonic() + seconds
    descriptor = _opened(ring, registered.file)
    process = -1
    try:
        # The process is pinned by its descriptor first, and then looked at.
        process = _pinned(pid)
        _require_registered(pid, ring, registered.signal, descriptor)
        before = _make_room(descriptor)
        if process >= 0:
            signal.pidfd_send_signal(process, registered.signal)
        else:
            os.kill(pid, registered.signal)
        return _appended(descriptor, before, until)
    except OSError as error:
        raise NoAnswer(f"process {pid} cannot be asked: {error.strerror}") from error
    finally:
        if process >= 0:
            os.close(process)
        os.close(descriptor)


def _pinned(pid: int) -> int:
    """Return a descriptor of a process, so that no other can take its id; -1 on older kernels."""
    try:
        return os.pidfd_open(pid)
    except OSError as error:
        if error.errno in (errno.ENOSYS, errno.EPERM):
            return -1
        raise


def read_answer(answer: bytes, ring: Path, registered: Registered) -> tuple[ThreadStack, ...]:
    """Read what faulthandler wrote.

    Raises:
        ValueError: If it is something else.
    """
    ident, tid = _head(ring, registered.file)
    threads: list[ThreadStack] = []
    name, of = "", -1
    frames: list[Frame] = []
    for line in answer.decode("utf-8", "replace").splitlines():
        if begun := _THREAD.match(line):
            if of >= 0:
                threads.append(_thread(of, name, frames, (ident, tid)))
            of, name, frames = int(begun[1], 16), begun[2] or "", []
        elif frame := _FRAME.match(line):
            number = int(frame[2]) if frame[2].isdigit() else 0
            frames.append(Frame(frame[3][:1000], frame[1][:1000], number))
    if of >= 0:
        threads.append(_thread(of, name, frames, (ident, tid)))
    if not threads:
        raise ValueError("faulthandler wrote no stacks")
    return ordered(threads)


def _thread(of: int, name: str, frames: list[Frame], main: tuple[int, int]) -> ThreadStack:
    is_main = of == main[0] and of != 0
    return ThreadStack(main[1] if is_main else 0, name, tuple(frames), main=is_main)


def _free_signal() -> int | None:
    """Return a real-time signal that this process neither catches nor ignores nor blocks."""
    try:
        with open("/proc/self/status", encoding="ascii", errors="replace") as file:
            masks = dict(line.split(":", 1) for line in file if line.startswith("Sig"))
        used = 0
        for mask in ("SigBlk", "SigIgn", "SigCgt"):
            used |= int(masks[mask], 16)
    except (OSError, ValueError, KeyError):
        return None
    # From the end: programs that use some take the first.
    for number in range(signal.SIGRTMAX - 1, signal.SIGRTMIN, -1):
        if not used >> (number - 1) & 1:
            return number
    return None


def _create(ring: Path) -> tuple[str, IO[bytes]]:
    """Make the file of a ring: the name of ``blackbox.rank0.7.ring`` is ``stacks.rank0.7.txt``."""
    name = stacks_name(ring.name)
    flags = os.O_WRONLY | os.O_APPEND | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC
    directory = os.open(ring.parent, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        descriptor = os.open(name, flags, FILE_MODE, dir_fd=directory)
    finally:
        os.close(directory)
    return name, os.fdopen(descriptor, "ab", buffering=0)


def _opened(ring: Path, name: str) -> int:
    if not _NAME.fullmatch(name):
        raise NoAnswer(f"{name[:80]!r} is no name of a file of stacks")
    try:
        descriptor = os.open(
            ring.parent / name, os.O_RDWR | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC
        )
    except OSError as error:
        raise NoAnswer(f"{name}: {error.strerror}") from error
    status = os.fstat(descriptor)
    if not stat.S_ISREG(status.st_mode) or status.st_uid != os.geteuid():
        os.close(descriptor)
        raise NoAnswer(f"{name} is no file of this user")
    return descriptor


def _require_registered(pid: int, ring: Path, number: int, file: int) -> None:
    if not signal.SIGRTMIN <= number <= signal.SIGRTMAX:
        raise NoAnswer(f"{number} is no real-time signal")
    descriptor = os.open(ring, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC)
    try:
        if is_held(descriptor) is False:
            raise NoAnswer("no process holds its black box any more")
    finally:
        os.close(descriptor)
    with open(f"/proc/{pid}/status", encoding="utf-8", errors="replace") as status:
        caught = next((line for line in status if line.startswith("SigCgt:")), "SigCgt: 0")
    if not int(caught.split()[1], 16) >> (number - 1) & 1:
        raise NoAnswer(f"process {pid} does not catch signal {number}")
    if not _has_open(pid, os.fstat(file)):
        raise NoAnswer(f"process {pid} does not have its file of stacks open")


def _has_open(pid: int, wanted: os.stat_result) -> bool:
    for entry in os.listdir(f"/proc/{pid}/fd"):
        with suppress(OSError):  # it was closed meanwhile
            found = os.stat(f"/proc/{pid}/fd/{entry}")
            if (found.st_dev, found.st_ino) == (wanted.st_dev, wanted.st_ino):
                return True
    return False


def _make_room(descriptor: int) -> int:
    """Empty a file that has grown too large, but for its first line; return its size."""
    size = os.fstat(descriptor).st_size
    if size <= MAX_FILE_BYTES:
        return size
    head = _HEAD_LINE.match(os.pread(descriptor, 256, 0))
    kept = head.end() if head else 0
    # Its writer appends, so that its next write goes to the new end.
    os.ftruncate(descriptor, kept)
    return kept


def _appended(descriptor: int, before: int, until: float) -> bytes:
    size = before
    changed = time.monotonic()
    while True:
        now = time.monotonic()
        found = os.fstat(descriptor).st_size
        if found != size:
            size, changed = found, now
        elif size > before and now - changed >= _QUIET_SECONDS:
            break
        if now >= until:
            if size > before:
                break
            raise NoAnswer("it did not answer in time: it is stopped, or in the kernel")
        time.sleep(_POLL_SECONDS)
    return os.pread(descriptor, min(size - before, MAX_ANSWER_BYTES), before)


def _head(ring: Path, name: str) -> tuple[int, int]:
    """Return which thread is the main one: as Python numbers it, and as the kernel does."""
    try:
        descriptor = _opened(ring, name)
    except NoAnswer:
        return 0, 0
    try:
        head = _HEAD_LINE.match(os.pread(descriptor, 256, 0))
    finally:
        os.close(descriptor)
    return (int(head[1], 16), int(head[2])) if head else (0, 0)


_open_files: list[IO[bytes]] = []
"""faulthandler keeps the number of a descriptor only, so the files stay open."""
