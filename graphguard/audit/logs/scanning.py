"""Finding the few lines of a large log that matter, without looking at each of the others.

The start of a log, and what follows a start of the engine, is read line by line. The rest is
searched in blocks for a few fixed strings, by ``bytes.find``, which is many times faster than a
regular expression with alternatives. Memory is bounded by one block and one line.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
BLOCK_BYTES = 1 << 20
MAX_LINE_BYTES = 4 << 20
"""What is kept of a line. The longest that an engine prints is a dump of many requests."""
DETAILED_BYTES = 2 << 20
"""How much is read line by line at the start, and after each start of an engine."""

ENGINE_STARTS = b"Initializing a"

# Longer strings are found faster. What a line of trouble holds besides these is of no matter.
ANCHORS = (
    b"ERROR",
    b"Error: ",
    b"Traceback (most recent",
    b"block found in ",
    b"generation throughput: 0.0 ",
    b"atchdog timeout",
    b"ProcessGroupNCCL",
    b"SchedulerOutput(",
    b"SchedulerStats(",
    b"NCCL WARN",
    b"NVRM: Xid",
    b"Hang detected",
    b"Fatal Python error",
    b"Killed",
    b"sigquit",
    b"SIGQUIT",
    b'"MainThread"',
    ENGINE_STARTS,
)

PROGRESS = (b"generation throughput: ", b"gen throughput (token/s): ")
"""Of these only the last in each block is read, and the last before each other line."""

Read = Callable[[int], bytes]
Feed = Callable[[int, bytes], int]
"""Takes the number of a line and the line, and returns how many of those after it it wants."""


def scan(read: Read, feed: Feed) -> int:
    """Feed the lines that matter, in order, and return how many lines there are.

    Args:
        read: Returns up to so many bytes of a log, and none at its end. A last line without an
            end counts too.
        feed: Called with each line that matters. What it returns is how many of the lines that
            follow it wants to see whatever is in them.
    """
    scanner = _Scanner(feed)
    for block in _whole_lines(read):
        scanner.take(block)
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
    def __init__(self, feed: Feed) -> None:
        self._feed = feed
        self._wanted = 0
        self._detailed = DETAILED_BYTES
        self.number = 1

    def take(self, block: bytes) -> None:
        """Take the next block of whole lines."""
        position = 0
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
        for begin in _starts(block, start):
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


def _starts(block: bytes, start: int) -> list[int]:
    """Return where the lines that matter begin, in order."""
    begins: set[int] = set()
    for anchor in ANCHORS:
        position = block.find(anchor, start)
        while position >= 0:
            begins.add(block.rfind(b"\n", start, position) + 1 or start)
            end = block.find(b"\n", position)
            position = block.find(anchor, end) if end >= 0 else -1
    for before in (*sorted(begins), len(block)):
        for progress in PROGRESS:
            position = block.rfind(progress, start, before)
            if position >= 0:
                begins.add(block.rfind(b"\n", start, position) + 1 or start)
    return sorted(begins)
