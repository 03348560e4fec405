"""The stacks of many processes at once, in a bounded time.

For each process: py-spy; where that fails pystack; where that fails, too, the process itself, by
its faulthandler. What could not be had is said, with why.
"""

from __future__ import annotations

import os
import signal
import threading
import time
from collections.abc import Callable, Iterable, Mapping
from contextlib import suppress
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

import msgspec

from graphguard.watch.stack_traces import bounded_command, faulthandler_floor, stack_engines
from graphguard.watch.stack_traces.faulthandler_floor import NoAnswer, Registered
from graphguard.watch.stack_traces.stack_model import Frame, ProcessStacks, ThreadStack, as_text
from graphguard.watch.stack_traces.tracing_rights import looks_refused, why_refused

if TYPE_CHECKING:
    from graphguard.watch.looking.ranks import RankState

__all__ = [
    "Floor",
    "Frame",
    "ProcessStacks",
    "ThreadStack",
    "as_text",
    "floors_of",
    "sample",
    "sample_native",
]

MAX_AT_ONCE = 16
_SHARE = 0.6
"""Of the time that is left, for each engine but the last."""

_LEAST_SECONDS = 0.05
_MAX_PROBLEM = 400
_SECONDS_TO_RESUME = 0.2
_TO_STOP = _SECONDS_TO_RESUME + 0.1
"""Kept of the time of an engine that stops processes, to put right what it leaves."""

_MAX_THREADS = 1024


class Floor(msgspec.Struct, frozen=True):
    """How a process can be asked for its own stacks: by what its pulse says."""

    ring: Path
    registered: Registered


def floors_of(states: Iterable[RankState]) -> dict[int, Floor]:
    """Return how the processes of ranks can be asked, those of them that can."""
    found = {}
    for state in states:
        pulse = state.pulse
        if pulse is not None and pulse.stack_signal:
            registered = Registered(pulse.stack_signal, os.path.basename(pulse.stacks_path))
            found[state.pid] = Floor(Path(state.ring), registered)
    return found


class _Engine(NamedTuple):
    name: str
    command: Callable[[int], list[str] | None]
    read: Callable[[bytes, int], tuple[ThreadStack, ...]]
    stops: bool


_PYTHON = (
    _Engine("py-spy", stack_engines.py_spy_command, stack_engines.read_py_spy, stops=False),
    _Engine("pystack", stack_engines.pystack_command, stack_engines.read_pystack, stops=False),
)
_NATIVE = (
    # pystack first: it reads processes that are stopped, too.
    _Engine(
        "pystack",
        lambda pid: stack_engines.pystack_command(pid, native=True),
        stack_engines.read_pystack,
        stops=True,
    ),
    _Engine(
        "py-spy",
        lambda pid: stack_engines.py_spy_command(pid, native=True),
        stack_engines.read_py_spy,
        stops=True,
    ),
)


def sample(
    pids: Iterable[int],
    seconds: float,
    *,
    floors: Mapping[int, Floor] | None = None,
) -> dict[int, ProcessStacks]:
    """Take the Python stacks of processes, of all at once. None of them is stopped for it.

    Args:
        pids: The processes.
        seconds: After which time the answer is there, whatever is in it.
        floors: How a process can be asked itself, if nothing can read it.

    Returns:
        An entry for each process; where there are no stacks, ``problem`` says why.
    """
    floors = floors or {}
    return _sample(pids, seconds, lambda pid, until: _stacks(pid, until, _PYTHON, floors.get(pid)))


def sample_native(pids: Iterable[int], seconds: float) -> dict[int, ProcessStacks]:
    """Take stacks with native frames. A process stands still for that, for a tenth of a second.

    Args:
        pids: The processes.
        seconds: After which time the answer is there, whatever is in it.
    """
    return _sample(pids, seconds, lambda pid, until: _stacks(pid, until, _NATIVE, None))


def _sample(
    pids: Iterable[int], seconds: float, take: Callable[[int, float], ProcessStacks]
) -> dict[int, ProcessStacks]:
    until = time.monotonic() + seconds
    wanted = list(dict.fromkeys(pids))
    waiting = list(reversed(wanted))
    taken: dict[int, ProcessStacks] = {}
    lock = threading.Lock()

    def work() -> None:
        while True:
            with lock:
                if not waiting:
                    return
                pid = waiting.pop()
            try:
                stacks = take(pid, until)
            except Exception as error:  # noqa: BLE001 - the others are still to be had
                stacks = _none(pid, f"it could not be looked at: {error!r}")
            with lock:
                taken[pid] = stacks

    threads = [
        threading.Thread(target=work, name=f"stacks {number}", daemon=True)
        for number in range(min(len(wanted), MAX_AT_ONCE))
    ]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(max(0.0, until - time.monotonic()))
    with lock:
        late = f"not in the {seconds:.2f} s that there were"
        return {pid: taken[pid] if pid in taken else _none(pid, late) for pid in wanted}


def _stacks(
    pid: int, until: float, engines: tuple[_Engine, ...], floor: Floor | None
) -> ProcessStacks:
    state = _state(pid)
    if state in ("", "Z", "X"):
        return _none(pid, "the process is gone" if state != "Z" else "the process is a zombie")
    problems: list[str] = []
    last = len(engines) + (floor is not None) - 1
    for number, engine in enumerate(engines):
        left = until - time.monotonic() - (_TO_STOP if engine.stops else 0.0)
        limit = left if number == last else left * _SHARE
        if limit < _LEAST_SECONDS:
            problems.append(f"{engine.name}: no time was left")
            continue
        threads, problem = _by(engine, pid, limit, state)
        if threads:
            return _taken(pid, engine.name, threads, problems)
        problems.append(f"{engine.name}: {problem}")
    if floor is not None:
        threads, problem = _by_itself(pid, floor, until - time.monotonic())
        if threads:
            return _taken(pid, "faulthandler", threads, problems)
        problems.append(f"faulthandler: {problem}")
    return _none(pid, "; ".join(problems))


def _by(
    engine: _Engine, pid: int, seconds: float, before: str
) -> tuple[tuple[ThreadStack, ...], str]:
    command = engine.command(pid)
    if command is None:
        return (), "it is not installed (pip install graphguard[stacks])"
    if engine.stops and _in_the_kernel(pid):
        return (), "a thread is in the kernel and cannot be stopped"
    outcome = bounded_command.run(command, seconds, environment=_environment())
    if engine.stops and outcome.ended_here:
        _resume(pid, before)
    if outcome.problem:
        return (), _failure(pid, outcome)
    try:
        return engine.read(outcome.output, pid), ""
    except ValueError as error:
        return (), str(error)[:_MAX_PROBLEM]


def _failure(pid: int, outcome: bounded_command.Outcome) -> str:
    """Return why an engine failed, as far as what it said tells."""
    if outcome.ended_here:
        return outcome.problem
    said = outcome.errors.decode("utf-8", "replace") + outcome.output.decode("utf-8", "replace")
    if looks_refused(said):
        return why_refused(pid)
    if not _state(pid):
        return "the process is gone"
    words = " ".join(said.partition("Stack backtrace")[0].split())
    return f"{outcome.problem}: {words}"[:_MAX_PROBLEM] if words else outcome.problem


def _by_itself(pid: int, floor: Floor, seconds: float) -> tuple[tuple[ThreadStack, ...], str]:
    if _state(pid) == "T":
        return (), "the process is stopped and cannot answer"
    try:
        answer = faulthandler_floor.ask(pid, floor.ring, floor.registered, max(seconds, 0.0))
        return faulthandler_floor.read_answer(answer, floor.ring, floor.registered), ""
    except (NoAnswer, ValueError) as error:
        return (), str(error)[:_MAX_PROBLEM]


def _resume(pid: int, before: str) -> None:
    """Let a process go on that an engine has left stopped because it was ended half-way.

    The engine attaches with a stop. If it ends before the stop has arrived, the process stops for
    good, now or when the kernel lets go of it. The signal to go on takes back a stop that is still
    to come, too.
    """
    # What an engine holds still was stopped before, or not: it is not known.
    if before in ("", "T", "t"):
        return
    until = time.monotonic() + _SECONDS_TO_RESUME
    with suppress(OSError):
        os.kill(pid, signal.SIGCONT)
        while time.monotonic() < until:
            if _state(pid) == "T":
                os.kill(pid, signal.SIGCONT)
            time.sleep(0.01)


def _in_the_kernel(pid: int) -> bool:
    """Return whether a thread is in a wait that nothing interrupts: it would not stop."""
    with suppress(OSError):
        for tid in os.listdir(f"/proc/{pid}/task")[:_MAX_THREADS]:
            if _letter(f"/proc/{pid}/task/{tid}/stat") == "D":
                return True
    return False


def _state(pid: int) -> str:
    """Return the letter of the kernel for what a process does; nothing if it is gone."""
    return _letter(f"/proc/{pid}/stat")


def _letter(path: str) -> str:
    try:
        with open(path, "rb") as file:
            stat = file.read(4096)
    except OSError:
        return ""
    return stat.rpartition(b")")[2][1:2].decode("ascii", "replace")


def _environment() -> dict[str, str]:
    """Return what an engine needs of the environment, and no preloaded library among it."""
    kept = ("PATH", "HOME", "LANG", "LC_ALL", "TMPDIR")
    return {name: os.environ[name] for name in kept if name in os.environ}


def _taken(
    pid: int, engine: str, threads: tuple[ThreadStack, ...], problems: list[str]
) -> ProcessStacks:
    return ProcessStacks(pid, engine, threads, "; ".join(problems), time.time_ns())


def _none(pid: int, problem: str) -> ProcessStacks:
    return ProcessStacks(pid, "", (), problem, time.time_ns())
