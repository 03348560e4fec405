"""What the kernel says of a process: whether it runs, what its threads wait in, what it has used.

All of it is read from ``/proc`` while the process goes on, so nothing is certain to be of one
moment, and any file may be gone or refused. What could not be read is left at its zero; only that
a process is gone is said.
"""

from __future__ import annotations

import os
from collections.abc import Iterator, Sequence
from contextlib import suppress

import msgspec

MAX_THREADS = 256
"""Threads of a process that are looked at. Each costs the reading of four files."""

MAX_CHILDREN = 64
"""Children of a process that are looked at."""

GONE = "gone"
ELSEWHERE = "elsewhere"
"""The state of a process of another machine, or of another container: nothing can be said here."""

_MAX_BYTES = 65_536
_STATES = {
    "R": "running",
    "S": "sleeping",
    "I": "sleeping",
    "D": "disk",
    "T": "stopped",
    "t": "stopped",
    "Z": "zombie",
}
_NS_PER_TICK = 1_000_000_000 // os.sysconf("SC_CLK_TCK")


class ThreadState(msgspec.Struct, frozen=True):
    """What one thread does.

    Attributes:
        tid: Its id.
        name: Its name, as it or the program gave it.
        state: As of a process.
        cpu_ns: Time that it has used so far.
        switches: How often it has given up the processor by itself, most often to wait.
        waits_in: The function of the kernel that it waits in; empty if it does not wait or the
            kernel does not say.
    """

    tid: int
    name: str
    state: str
    cpu_ns: int
    switches: int
    waits_in: str


class Child(msgspec.Struct, frozen=True):
    """A child of a process: a compiler, most often."""

    pid: int
    name: str
    cpu_ns: int


class ProcessState(msgspec.Struct, frozen=True):
    """What one process does.

    Attributes:
        pid: Its id.
        alive: Whether it can still do something. A zombie cannot.
        state: ``running``, ``sleeping``, ``disk`` (it cannot be interrupted), ``stopped``,
            ``zombie``, ``gone``, or ``elsewhere``.
        started_ticks: When it started, in ticks of the kernel since the machine did; 0 if it is
            gone. Two processes of one id differ in it.
        cpu_ns: Time that all its threads have used so far, those that ended included.
        read_bytes: What it has read so far: by system calls, or from disks, whichever is more.
        threads: Its threads, the first one first.
        children: Its children.
        more_threads: How many threads were not looked at.
        name: Its name.
        num_threads: How many threads it has.
    """

    pid: int
    alive: bool
    state: str
    started_ticks: int = 0
    cpu_ns: int = 0
    read_bytes: int = 0
    threads: tuple[ThreadState, ...] = ()
    children: tuple[Child, ...] = ()
    more_threads: int = 0
    name: str = ""
    num_threads: int = 0


class _Stat(msgspec.Struct, frozen=True):
    name: str
    state: str
    cpu_ns: int
    num_threads: int
    started_ticks: int
    parent: int = 0
    session: int = 0


def process_state(pid: int, max_threads: int = MAX_THREADS) -> ProcessState:
    """Look at a process. It may end meanwhile, or be gone already.

    Args:
        pid: Its id.
        max_threads: How many of its threads are looked at. With 0, its children are left out too.
    """
    stat = _stat(f"/proc/{pid}/stat")
    if stat is None:
        return gone(pid)
    threads: tuple[ThreadState, ...] = ()
    children: tuple[Child, ...] = ()
    more = 0
    if max_threads:
        tids = _tids(pid)
        found = (_thread(pid, tid) for tid in tids[:max_threads])
        threads = tuple(thread for thread in found if thread is not None)
        more = max(0, len(tids) - max_threads)
        children = tuple(_children(pid, [thread.tid for thread in threads]))
        again = _stat(f"/proc/{pid}/stat")
        if again is None or again.started_ticks != stat.started_ticks:
            return gone(pid)
    read = _text(f"/proc/{pid}/io")
    # The first thread may have ended while others go on.
    zombie = stat.state == "zombie" and stat.num_threads <= 1
    state = "sleeping" if stat.state == "zombie" and not zombie else stat.state
    return ProcessState(
        pid=pid,
        alive=not zombie and state != GONE,
        state=state,
        started_ticks=stat.started_ticks,
        cpu_ns=stat.cpu_ns,
        read_bytes=max(_number_after("rchar:", read), _number_after("read_bytes:", read)),
        threads=threads,
        children=children,
        more_threads=more,
        name=stat.name,
        num_threads=stat.num_threads,
    )


def family(pid: int) -> tuple[int, int]:
    """Return the parent of a process and its session; zeros if it is gone."""
    stat = _stat(f"/proc/{pid}/stat")
    return (stat.parent, stat.session) if stat is not None else (0, 0)


def gone(pid: int) -> ProcessState:
    """Return the state of a process that is gone."""
    return ProcessState(pid=pid, alive=False, state=GONE)


def elsewhere(pid: int) -> ProcessState:
    """Return the state of a process that cannot be seen from here. It counts as alive."""
    return ProcessState(pid=pid, alive=True, state=ELSEWHERE)


def _thread(pid: int, tid: int) -> ThreadState | None:
    folder = f"/proc/{pid}/task/{tid}"
    stat = _stat(f"{folder}/stat")
    if stat is None:
        return None
    waits_in = _text(f"{folder}/wchan").strip()
    return ThreadState(
        tid=tid,
        name=stat.name,
        state=stat.state,
        cpu_ns=_precise_cpu_ns(folder) or stat.cpu_ns,
        switches=_number_after("voluntary_ctxt_switches:", _text(f"{folder}/status")),
        waits_in="" if waits_in == "0" else waits_in,
    )


def _children(pid: int, tids: Sequence[int]) -> Iterator[Child]:
    """Return the children that the threads have started, where the kernel lists them."""
    pids: list[str] = []
    for tid in tids:
        pids += _text(f"/proc/{pid}/task/{tid}/children").split()
    for child in pids[:MAX_CHILDREN]:
        stat = _stat(f"/proc/{child}/stat") if child.isdigit() else None
        if stat is not None:
            yield Child(int(child), stat.name, stat.cpu_ns)


def _tids(pid: int) -> list[int]:
    with suppress(OSError):
        return sorted(int(name) for name in os.listdir(f"/proc/{pid}/task") if name.isdigit())
    return []


def _stat(path: str) -> _Stat | None:
    # A name may hold anything, brackets and spaces too: what follows it begins at the last one.
    before, bracket, after = _text(path).rpartition(")")
    fields = after.split()
    if not bracket or len(fields) < 20:
        return None
    with suppress(ValueError):
        return _Stat(
            name=before.partition("(")[2],
            state=_STATES.get(fields[0], GONE),
            cpu_ns=(int(fields[11]) + int(fields[12])) * _NS_PER_TICK,
            num_threads=int(fields[17]),
            started_ticks=int(fields[19]),
            parent=int(fields[1]),
            session=int(fields[3]),
        )
    return None


def _precise_cpu_ns(folder: str) -> int:
    """Return what the scheduler counted, in nanoseconds and not in ticks; 0 if it does not tell."""
    first = _text(f"{folder}/schedstat").partition(" ")[0]
    return int(first) if first.isdigit() else 0


def _number_after(label: str, text: str) -> int:
    for line in text.splitlines():
        if line.startswith(label):
            number = line[len(label) :].strip()
            return int(number) if number.isdigit() else 0
    return 0


def _text(path: str) -> str:
    """Return what a file of ``/proc`` says; nothing if it is gone or refused."""
    with suppress(OSError):
        descriptor = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
        try:
            return os.read(descriptor, _MAX_BYTES).decode(errors="replace")
        finally:
            os.close(descriptor)
    return ""
