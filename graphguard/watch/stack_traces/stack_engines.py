"""The two engines that read the stacks of another process: py-spy and pystack.

Both read its memory. Without native frames they do not stop it for that; with native frames they
do, for about a tenth of a second.
"""

from __future__ import annotations

import os
import re
import shutil
import sys

import msgspec

from graphguard.watch.stack_traces.stack_model import Frame, ThreadStack, ordered

MAX_THREADS = 1024
MAX_FRAMES = 512
_MAX_TEXT = 1000

_PYSTACK_THREAD = re.compile(
    r"Traceback for thread (\d{1,10}) \((.*?)\)(?: \[(.*?)\])? \(most recent"
)
_PYSTACK_FRAME = re.compile(
    r"    \((Python|C)\) File \"(.*)\", line (\d{1,9}), in (.*?)(?: \((?!inlined\))(\S*)\))?$"
)


class _SpyFrame(msgspec.Struct):
    name: str
    filename: str = ""
    line: int = 0
    module: str | None = None


class _SpyThread(msgspec.Struct):
    frames: list[_SpyFrame]
    thread_name: str | None = None
    os_thread_id: int | None = None
    owns_gil: bool = False


def py_spy_command(pid: int, *, native: bool = False) -> list[str] | None:
    """Return the command that dumps the stacks of a process as JSON; None without py-spy."""
    program = _program("py-spy")
    if program is None:
        return None
    how = "--native" if native else "--nonblocking"
    return [program, "dump", "--pid", str(pid), "--json", "--full-filenames", how]


def pystack_command(pid: int, *, native: bool = False) -> list[str] | None:
    """Return the command that prints the stacks of a process; None without pystack."""
    program = _program("pystack")
    if program is None:
        return None
    return [program, "remote", "--no-color", "--native" if native else "--no-block", str(pid)]


def read_py_spy(output: bytes, pid: int) -> tuple[ThreadStack, ...]:
    """Read what ``py-spy dump --json`` wrote.

    Raises:
        ValueError: If it is something else.
    """
    try:
        told = msgspec.json.decode(output, type=list[_SpyThread])
    except msgspec.DecodeError as error:
        raise ValueError(f"py-spy wrote no stacks: {error}") from None
    threads = []
    for thread in told[:MAX_THREADS]:
        frames = tuple(_spy_frame(frame) for frame in thread.frames[:MAX_FRAMES])
        named_main = thread.os_thread_id is None and thread.thread_name == "MainThread"
        threads.append(
            ThreadStack(
                tid=thread.os_thread_id or 0,
                name=_short(thread.thread_name or ""),
                frames=frames,
                main=thread.os_thread_id == pid or named_main,
                holds_gil=thread.owns_gil,
            )
        )
    return ordered(threads)


def read_pystack(output: bytes, pid: int) -> tuple[ThreadStack, ...]:
    """Read what ``pystack remote`` wrote.

    Raises:
        ValueError: If it is something else.
    """
    threads: list[ThreadStack] = []
    frames: list[Frame] = []
    head: re.Match[str] | None = None
    for line in output.decode("utf-8", "replace").splitlines():
        if begun := _PYSTACK_THREAD.match(line):
            _finish(threads, head, frames, pid)
            head, frames = begun, []
        elif head is not None and (frame := _PYSTACK_FRAME.match(line)):
            native = frame[1] == "C"
            library = frame[5] if native and frame[2] == "???" else None
            frames.append(
                Frame(_short(frame[4]), _short(library or frame[2]), int(frame[3]), native)
            )
    _finish(threads, head, frames, pid)
    if not threads:
        raise ValueError("pystack wrote no stacks")
    return ordered(threads[:MAX_THREADS])


def _finish(
    threads: list[ThreadStack], head: re.Match[str] | None, frames: list[Frame], pid: int
) -> None:
    if head is None:
        return
    tid = int(head[1])
    innermost_first = tuple(reversed(frames[-MAX_FRAMES:]))
    gil = "Has the GIL" in (head[3] or "")
    threads.append(ThreadStack(tid, "", innermost_first, main=tid == pid, holds_gil=gil))


def _spy_frame(frame: _SpyFrame) -> Frame:
    return Frame(
        function=_short(frame.name),
        file=_short(frame.filename),
        line=max(frame.line, 0),
        native=frame.module is not None,
    )


def _program(name: str) -> str | None:
    """Return where a program of this environment is, which need not be on the path."""
    beside = os.path.join(os.path.dirname(sys.executable), name)
    return beside if os.access(beside, os.X_OK) else shutil.which(name)


def _short(text: str) -> str:
    return text if len(text) <= _MAX_TEXT else f"{text[: _MAX_TEXT - 1]}…"
