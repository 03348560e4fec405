"""What the lines of one log tell, kept in bounded memory while they go by."""

from __future__ import annotations

import re
from collections.abc import Sequence

from graphguard.audit.logs.configuration import Configuration
from graphguard.audit.logs.dump import ScheduledStep, depth_of, read_dump
from graphguard.audit.logs.events import SHM_FRAME, Event, event_of
from graphguard.audit.logs.lines import Line, take_apart
from graphguard.audit.logs.model import Evidence

KEPT = 40
"""Events of a kind that are kept: so many first ones, and as many last ones."""
MAX_DUMP = 8 << 20
LINES_AFTER = {"traceback": 80, "stack": 40, "dump": 500}
MAX_QUOTED = 200
# What a report may quote of a dump without the rest, and which part of it that is.
_QUOTED = {"scheduled_spec_decode_tokens": "drafts", "num_running_reqs": "running"}
_MAX_NAMED = 20_000
_NAMED = re.compile(r"\b[\w.-]{1,60}/[\w.-]{1,60}#\d{1,6}")
_DUMPS = ("SchedulerOutput(", "SchedulerStats(")
# What is told of the running of the engine, and of which only the last of each matters.
_LAST_ONLY = ("progress", "idle", "no-progress")


class Events:
    """Events of one kind: the first and the last, and how many there were."""

    def __init__(self) -> None:
        self.first: list[Event] = []
        self.last: list[Event] = []
        self.count = 0

    def add(self, event: Event) -> None:
        """Add an event that is later than all others."""
        self.count += 1
        if len(self.first) < KEPT:
            self.first.append(event)
        else:
            self.last.append(event)
            if len(self.last) > KEPT:
                del self.last[0]

    def all(self) -> list[Event]:
        """Return those that are kept, in order."""
        return [*self.first, *self.last]


class Collected:
    """What was told so far. :meth:`take` is fed with the lines in order.

    Attributes:
        configuration: The settings.
        dump: The last scheduler dump.
        dump_lines: The lines that it is on.
        frames: Functions of vLLM's shared-memory queue that were seen on a stack, and where.
        stacks: Top frames below the main thread, by line, as py-spy prints them.
        named: Public threads that the text names, as ``owner/repository#number``, and where.
        lines: Lines of the log, set when it is done.
    """

    def __init__(self) -> None:
        self.configuration = Configuration()
        self.dump: ScheduledStep | None = None
        self.dump_lines: list[Evidence] = []
        self.frames: dict[str, Line] = {}
        self.stacks: list[tuple[Line, list[str]]] = []
        self.named: dict[str, Line] = {}
        self.lines = 0
        self._events: dict[str, Events] = {}
        self._open = ""
        self._owner = ""
        self._parts: list[str] = []
        self._depth = self._length = 0
        self._partial: Line | None = None
        self._stack: list[str] | None = None

    def take(self, number: int, raw: bytes) -> int:
        """Take a line, and return how many of those after it are wanted."""
        line = take_apart(number, raw)
        if self._partial is not None:
            whole = self._partial.message + line.message
            line = self._partial._replace(message=whole[:MAX_DUMP], partial=line.partial)
        self._partial = line if line.partial else None
        if line.partial:
            return LINES_AFTER["dump"]
        self.configuration.take(line)
        if "#" in line.message[:_MAX_NAMED] and len(self.named) < KEPT:
            for match in _NAMED.finditer(line.message[:_MAX_NAMED]):
                self.named.setdefault(match[0], line)
        wanted = max(self._take_dump(line), self._take_stack(line), self._take_event(line))
        frame = SHM_FRAME.search(line.message[:4000]) if "shm_broadcast" in line.message else None
        if frame is not None:
            self.frames.setdefault(frame["function"], line)
        return wanted

    def of(self, *kinds: str) -> list[Event]:
        """Return the events of some kinds, in order."""
        events = [
            event for kind in kinds if kind in self._events for event in self._events[kind].all()
        ]
        return sorted(events, key=lambda event: event.line.number)

    def count(self, kind: str) -> int:
        """Return how many events of a kind there were."""
        return self._events[kind].count if kind in self._events else 0

    def finish(self, lines: int) -> None:
        """Take what was still open when the log ended."""
        self.lines = lines
        if self._parts:
            self._read_dump()

    def _take_event(self, line: Line) -> int:
        event = event_of(line)
        if event is not None:
            events = self._events.setdefault(event.kind, Events())
            if event.kind in _LAST_ONLY and events.count > 2 * KEPT:
                events.last.clear()
            events.add(event)
            if event.kind == "stack":
                self._stack = []
                if len(self.stacks) < KEPT:
                    self.stacks.append((line, self._stack))
                return LINES_AFTER["stack"]
        # A logger repeats its prefix on each line, and the lines of it are found by that.
        plain = not line.level and "Traceback (most recent" in line.message[:4000]
        return LINES_AFTER["traceback"] if plain else 0

    def _take_stack(self, line: Line) -> int:
        if self._stack is None:
            return 0
        text = line.message.strip()
        if not text or text.startswith("Thread ") or len(self._stack) >= LINES_AFTER["stack"]:
            self._stack = None
            return 0
        self._stack.append(text[:MAX_QUOTED])
        return 1

    def _take_dump(self, line: Line) -> int:
        if self._parts:
            if line.process != self._owner or (line.level and line.level not in ("ERROR", "error")):
                return LINES_AFTER["dump"] if not _starts(line.message) else self._begin(line)
            if not _starts(line.message):
                return self._add(line.message)
            self._read_dump()
        return self._begin(line) if _starts(line.message) else self._draft_words(line)

    def _begin(self, line: Line) -> int:
        start = min(at for name in _DUMPS if (at := line.message.find(name)) >= 0)
        self._parts, self._depth, self._length = [], 0, 0
        self._owner = line.process
        self._open = _DUMPS[0] if _DUMPS[0] in line.message else _DUMPS[1]
        self.dump_lines.append(quote(line, start))
        del self.dump_lines[:-4]
        return self._add(line.message[start : start + MAX_DUMP])

    def _add(self, text: str) -> int:
        self._parts.append(text)
        self._depth += depth_of(text)
        self._length += len(text)
        if len(self._parts) < LINES_AFTER["dump"] and self._length < MAX_DUMP and self._depth > 0:
            return 1
        self._read_dump()
        return 0

    def _read_dump(self) -> None:
        read = read_dump("\n".join(self._parts))
        self._parts = []
        self.dump = read if self.dump is None else _merged(self.dump, read, self._open)

    def _draft_words(self, line: Line) -> int:
        for argument, known in _QUOTED.items():
            start = line.message.find(f"{argument}=")
            if start >= 0 and (self.dump is None or getattr(self.dump, known) is None):
                read = read_dump(line.message[start:])
                self.dump = read if self.dump is None else _merged(self.dump, read, "")
                self.dump_lines.append(quote(line, start))
        return 0


def _starts(message: str) -> bool:
    return any(name in message for name in _DUMPS)


def _merged(old: ScheduledStep, new: ScheduledStep, what: str) -> ScheduledStep:
    """Return the newer dump, with what only the other half of a dump says."""
    if what == _DUMPS[0]:
        return new if new.scheduled or old.scheduled is None else old
    fields = {
        name: value
        for name in ScheduledStep.__struct_fields__
        if (value := getattr(new, name)) not in (None, False)
    }
    merged = {name: getattr(old, name) for name in ScheduledStep.__struct_fields__} | fields
    return ScheduledStep(**merged)


def quote(line: Line, start: int = 0) -> Evidence:
    """Return a line as evidence: its number and the start of what it says."""
    text = line.message[start : start + 4 * MAX_QUOTED].strip()
    short = text if len(text) <= MAX_QUOTED else f"{text[: MAX_QUOTED - 1]}…"
    return Evidence(line.number, short)


def quotes(events: Sequence[Event], most: int = 5) -> tuple[Evidence, ...]:
    """Return events as evidence: the first few and the last."""
    chosen = events if len(events) <= most else [*events[: most - 1], events[-1]]
    return tuple(quote(event.line) for event in chosen)
