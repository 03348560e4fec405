"""Finding the few lines of a large log that matter, without looking at each of the others.

The start of a log, and what follows a start of the engine, is read line by line. The rest is
searched in blocks for a few fixed strings, by ``bytes.find``, which is many times faster than a
regular expression with alternatives. Memory is bounded by one block and one line.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator

BLOCK_BYTES = 1 << 20
END_BYTES = 1 << 17
"""How much of the end is read line by line."""
MAX_LINE_BYTES = 4 << 20
"""What is kept of a line. The longest that an engine prints is a dump of many requests."""
DETAILED_BYTES = 1 << 19
"""How much is read line by line at the start, and after each start of an engine."""

ENGINE_STARTS = b"Initializing a"

# Longer strings are found faster: the longer, the more bytes are skipped at once.
_OF_ALL = (
    b"ERROR",
    b"Error: ",
    b"ProcessGroupNCCL",
    b" NCCL WARN ",
    b"NVRM: Xid (PCI:",
    b"Fatal Python error",
    b"Killed process ",
    ENGINE_STARTS,
)
_OF_VLLM = (b" block found in ", b"generation throughput: 0.0 ", b"init engine (profile")
_OF_OTHERS = (
    b"atchdog timeout (self.",
    b"Hang detected on rank",
    b"sigquit from a child",
    b"SIGQUIT received",
    b'): "MainThread"',
    b"cur_batch",
    b"Error in event loop",
    b"fired up and ready",
)
# In a log of vLLM what matters of these is on lines of level ERROR.
_TRACEBACK = b"Traceback (most recent"
_DUMPS = (b"SchedulerOutput(", b"SchedulerStats(")

_PROGRESS_OF_VLLM = (b"generation throughput: ",)
_PROGRESS_OF_OTHERS = (b"gen throughput (token/s): ",)
"""Of these only the last in each block is read, and the last before the first other line."""


def anchors(engine: str | None) -> tuple[tuple[bytes, ...], tuple[bytes, ...]]:
    """Return what lines of trouble hold, and what lines of progress hold, in logs of an engine."""
    if engine == "vllm":
        return (*_OF_ALL, *_OF_VLLM), _PROGRESS_OF_VLLM
    if engine is None:
        everything = (*_OF_ALL, *_OF_VLLM, *_OF_OTHERS, _TRACEBACK, *_DUMPS)
        return everything, (*_PROGRESS_OF_VLLM, *_PROGRESS_OF_OTHERS)
    return (*_OF_ALL, *_OF_OTHERS, _TRACEBACK), _PROGRESS_OF_OTHERS


Read = Callable[[int], bytes]
Feed = Callable[[int, bytes], int]
"""Takes the number of a line and the line, and returns how many of those after it it wants."""


def scan(read: Read, feed: Feed, engine: Callable[[], str | None]) -> int:
    """Feed the lines that matter, in order, and return how many lines there are.

    Args:
        read: Returns up to so many bytes of a log, and none at its end. A last line without an
            end counts too.
        feed: Called with each line that matters. What it returns is how many of the lines that
            follow it wants to see whatever is in them.
        engine: Returns which engine the lines so far are of.
    """
    scanner = _Scanner(feed, engine)
    last = b""
    for block in _whole_lines(read):
        scanner.take(last)
        last = block
    # How it ended is told by lines of any kind, such as a shell's "Killed".
    end = last.rfind(b"\n", 0, max(len(last) - END_BYTES, 0)) + 1
    scanner.take(last[:end])
    scanner.take(last[end:], detailed=True)
    return scanner.number - 1


def _whole_lines(read: Read) -> Iterator[bytes]:
    """Yield blocks that end with a line; of a line that is too long, only the start."""
    rest = b""
    cutting = False
    while block := read(BLOCK_BYTES):
        if cutting:
            end = block.find(b"\n")
            if end < 0:
                continue
            block = b"\n" + block[end + 1 :]
            cutting = False
        block = rest + block if rest else block
        end = block.rfind(b"\n") + 1
        if end:
            yield block[:end]
        rest = block[end:]
        if len(rest) > MAX_LINE_BYTES:
            rest, cutting = rest[:MAX_LINE_BYTES], True
    if rest:
        yield rest + b"\n"


class _Scanner:
    def __init__(self, feed: Feed, engine: Callable[[], str | None]) -> None:
        self._feed = feed
        self._engine = engine
        self._wanted = 0
        self._detailed = DETAILED_BYTES
        self.number = 1

    def take(self, block: bytes, *, detailed: bool = False) -> None:
        """Take the next block of whole lines, each of them if ``detailed``."""
        position = 0
        if detailed:
            self._detailed = max(self._detailed, len(block))
        while position < len(block):
            if self._wanted > 0 or self._detailed > 0:
                position = self._line(block, position)
            else:
                position = self._jump(block, position)

    def _line(self, block: bytes, start: int) -> int:
        """Feed one line and return where the next begins."""
        end = block.find(b"\n", start) + 1 or len(block)
        line = block[start:end]
        if ENGINE_STARTS in line:
            self._detailed = DETAILED_BYTES
        self._detailed -= len(line)
        self._wanted = max(self._wanted - 1, self._feed(self.number, line))
        self.number += 1
        return end

    def _jump(self, block: bytes, start: int) -> int:
        """Feed the lines that matter, until some line wants those after it."""
        position = start
        for begin in _starts(block, start, *anchors(self._engine())):
            if begin < position:
                continue  # a line before wanted it and had it already
            self.number += block.count(b"\n", position, begin)
            position = self._line(block, begin)
            while self._wanted > 0 and position < len(block):
                position = self._line(block, position)
            if self._detailed > 0:
                return position
        self.number += block.count(b"\n", position)
        return len(block)


def _starts(
    block: bytes, start: int, trouble: tuple[bytes, ...], progress: tuple[bytes, ...]
) -> list[int]:
    """Return where the lines that matter begin, in order."""
    begins: set[int] = set()
    for anchor in trouble:
        position = block.find(anchor, start)
        while position >= 0:
            begins.add(block.rfind(b"\n", start, position) + 1 or start)
            end = block.find(b"\n", position)
            position = block.find(anchor, end) if end >= 0 else -1
    for before in (min(begins, default=start), len(block)):
        for anchor in progress:
            position = block.rfind(anchor, start, before) if before > start else -1
            if position >= 0:
                begins.add(block.rfind(b"\n", start, position) + 1 or start)
    return sorted(begins)
