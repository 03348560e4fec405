"""Stacks of processes, whoever took them."""

from __future__ import annotations

from collections.abc import Iterator

import msgspec


class Frame(msgspec.Struct, frozen=True, omit_defaults=True):
    """One call on a stack.

    Attributes:
        function: Its name, or an address where nothing has a name.
        file: The source file; of native code without debug information, the library.
        line: In that file; 0 if it is not known.
        native: Whether it is compiled code.
    """

    function: str
    file: str
    line: int
    native: bool = False

    def __str__(self) -> str:
        where = f"{self.file}:{self.line}" if self.line else self.file
        return f"{self.function} ({where})"


class ThreadStack(msgspec.Struct, frozen=True):
    """What a thread was doing.

    Attributes:
        tid: Its native id; 0 if the engine does not tell it.
        name: Its name in Python, if the engine tells it.
        frames: From the innermost to the outermost.
        main: Whether it is the main thread of its process.
        holds_gil: None if the engine does not tell.
    """

    tid: int
    name: str
    frames: tuple[Frame, ...]
    main: bool = False
    holds_gil: bool | None = None


class ProcessStacks(msgspec.Struct, frozen=True):
    """The stacks of one process at one moment.

    Attributes:
        pid: The process.
        engine: What took them: ``py-spy``, ``pystack``, ``faulthandler``; empty if nothing could.
        threads: The main thread first.
        problem: Why there are none, or what went wrong before there were.
        time_ns: When, in nanoseconds since the epoch.
    """

    pid: int
    engine: str
    threads: tuple[ThreadStack, ...]
    problem: str = ""
    time_ns: int = 0

    @property
    def main(self) -> ThreadStack | None:
        """The main thread, on which engines launch."""
        return next((thread for thread in self.threads if thread.main), None)


def ordered(threads: list[ThreadStack]) -> tuple[ThreadStack, ...]:
    """Return threads with the main thread first."""
    return tuple(sorted(threads, key=lambda thread: not thread.main))


def as_text(stacks: ProcessStacks) -> str:
    """Return stacks as lines for people."""
    return "".join(f"{line}\n" for line in _lines(stacks))


def _lines(stacks: ProcessStacks) -> Iterator[str]:
    yield f"process {stacks.pid}, by {stacks.engine or 'nothing'}"
    if stacks.problem:
        yield f"problem: {stacks.problem}"
    for thread in stacks.threads:
        told = [
            f"thread {thread.tid or '?'}",
            *([f'"{thread.name}"'] if thread.name else []),
            *(["main"] if thread.main else []),
            *(["holds the GIL"] if thread.holds_gil else []),
        ]
        yield ""
        yield " ".join(told)
        yield from (f"    {frame}" for frame in thread.frames)
