"""What the kernel says of real processes: running, sleeping, stopped, ended, gone."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager

import pytest

from graphguard.watch.looking import processes
from graphguard.watch.looking.processes import ProcessState, process_state

PATIENCE = 20.0

SLEEPS = "print(flush=True); import time; time.sleep(600)"
SPINS = "print(flush=True)\nwhile True: pass"
THREADS = """
import threading, time
def named():
    with open("/proc/thread-self/comm", "w") as comm: comm.write("a (b) c")
    ready.wait()
    time.sleep(600)
ready = threading.Barrier(21)
for _ in range(20): threading.Thread(target=named, daemon=True).start()
ready.wait()
print(flush=True)
time.sleep(600)
"""
HAS_CHILD = """
import subprocess, sys, time
child = subprocess.Popen([sys.executable, "-c", "import time; time.sleep(600)"])
print(child.pid, flush=True)
try: sys.stdin.read()
finally: child.kill(); child.wait()
"""


@contextmanager
def child(code: str) -> Iterator[subprocess.Popen[str]]:
    """A process that has come as far as its first line."""
    process = subprocess.Popen(
        [sys.executable, "-c", code], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    )
    assert process.stdout is not None
    process.first_line = process.stdout.readline()  # type: ignore[attr-defined]
    try:
        yield process
    finally:
        if process.stdin is not None:
            process.stdin.close()
        if code != HAS_CHILD:
            process.kill()
        process.wait(PATIENCE)
        process.stdout.close()


def until(pid: int, holds: Callable[[ProcessState], bool]) -> ProcessState:
    deadline = time.monotonic() + PATIENCE
    while not holds(state := process_state(pid)):
        assert time.monotonic() < deadline, state
        time.sleep(0.02)
    return state


def test_a_process_that_sleeps_uses_no_time_and_says_what_it_waits_in() -> None:
    with child(SLEEPS) as process:
        state = until(process.pid, lambda state: state.state == "sleeping")

        assert state.alive
        assert state.started_ticks > 0
        assert state.num_threads == len(state.threads) == 1
        assert state.threads[0].tid == process.pid
        assert state.threads[0].state == "sleeping"
        assert state.threads[0].switches > 0
        assert state.read_bytes > 0
        assert process_state(process.pid).threads[0].cpu_ns == state.threads[0].cpu_ns


def test_a_process_that_spins_uses_time() -> None:
    with child(SPINS) as process:
        first = process_state(process.pid)
        later = until(process.pid, lambda state: state.cpu_ns > first.cpu_ns)

        assert later.threads[0].cpu_ns > first.threads[0].cpu_ns
        until(process.pid, lambda state: state.state == "running")


def test_a_stopped_process_is_stopped_until_it_is_let_go() -> None:
    with child(SLEEPS) as process:
        os.kill(process.pid, signal.SIGSTOP)
        stopped = until(process.pid, lambda state: state.state == "stopped")
        assert stopped.alive
        os.kill(process.pid, signal.SIGCONT)
        until(process.pid, lambda state: state.state == "sleeping")


def test_who_ended_is_a_zombie_and_then_gone() -> None:
    with child(SLEEPS) as process:
        process.kill()
        zombie = until(process.pid, lambda state: state.state == "zombie")
        assert not zombie.alive
        process.wait(PATIENCE)

        state = process_state(process.pid)
        assert state == ProcessState(pid=process.pid, alive=False, state="gone")


def test_threads_are_bounded_and_those_left_out_are_counted() -> None:
    with child(THREADS) as process:
        state = process_state(process.pid, 5)

        assert len(state.threads) == 5
        assert state.threads[0].tid == process.pid
        assert state.more_threads == 16
        assert state.num_threads == 21


def test_a_name_with_brackets_and_spaces_breaks_nothing() -> None:
    with child(THREADS) as process:
        names = [thread.name for thread in process_state(process.pid).threads]

        assert names.count("a (b) c") == 20


def test_children_are_named() -> None:
    with child(HAS_CHILD) as process:
        state = process_state(process.pid)

        assert [each.pid for each in state.children] == [int(process.first_line)]  # type: ignore[attr-defined]
        assert state.children[0].name.startswith("python")


def test_without_threads_only_the_process_is_looked_at() -> None:
    state = process_state(os.getpid(), 0)

    assert state.threads == ()
    assert state.alive
    assert state.cpu_ns > 0


def test_an_id_that_goes_to_another_process_meanwhile_is_gone(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    whole, looks = processes._stat, iter(range(1000))

    def stat(path: str) -> object:
        found = whole(path)
        assert found is not None
        return processes._Stat(found.name, "sleeping", 0, 1, 1000 + next(looks))

    monkeypatch.setattr(processes, "_stat", stat)

    assert process_state(os.getpid()).state == "gone"


@pytest.mark.parametrize("text", ["", "12 (x", "12 (x) S 1 2", "12 (x) S" + " x" * 40])
def test_what_is_no_state_of_a_process_is_one_that_is_gone(
    text: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(processes, "_text", lambda path: text)

    assert process_state(os.getpid()).state == "gone"
