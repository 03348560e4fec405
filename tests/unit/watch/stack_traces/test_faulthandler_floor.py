"""Processes that write their own stacks when they are asked, and those that must not be asked."""

from __future__ import annotations

import errno
import os
import signal
import stat
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from graphguard.blackbox.pulse import read_pulse
from graphguard.watch.looking.ranks import rank_states
from graphguard.watch.stack_traces import faulthandler_floor as floor
from graphguard.watch.stack_traces import stack_engines, stacks
from tests.unit.watch.stuck_processes import c_spin, running, state, wait_for_state

ASKABLE = """
import ctypes, sys, threading, time
from graphguard.blackbox.writer import process_box
from graphguard.watch.stack_traces import faulthandler_floor
box = process_box()
assert faulthandler_floor.register(box) is not None
threading.Thread(target=threading.Event().wait, name="waiter", daemon=True).start()
library = ctypes.PyDLL(sys.argv[1]) if len(sys.argv) > 1 else None
def stuck():
    print("up", flush=True)
    if library is not None:
        library.spins_in_c()
    while True:
        time.sleep(0.001)
stuck()
"""

SECONDS = 20.0


@contextmanager
def askable(directory: Path, *arguments: str) -> Iterator[tuple[int, stacks.Floor]]:
    """Run a process that has registered, and return how it is asked."""
    environment = {"GRAPHGUARD_DIR": str(directory), "GRAPHGUARD_RING_ENTRIES": "256"}
    with running(ASKABLE, *arguments, **environment) as pid:
        (found,) = rank_states(directory, frozenset([pid]))
        floors = stacks.floors_of([found])
        yield pid, floors[pid]


@pytest.fixture
def directory(tmp_path: Path) -> Path:
    path = tmp_path / "rings"
    path.mkdir(mode=0o700)
    return path


@pytest.fixture
def _no_engine(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(stack_engines, "_program", lambda _: None)


@pytest.mark.usefixtures("_no_engine")
def test_without_an_engine_a_process_writes_its_own_stacks(directory: Path) -> None:
    with askable(directory) as (pid, how):
        taken = stacks.sample([pid], SECONDS, floors={pid: how})[pid]
        again = stacks.sample([pid], SECONDS, floors={pid: how})[pid]
        assert state(pid) in "RS"
    assert taken.engine == "faulthandler", taken.problem
    assert taken.main is not None
    assert taken.main.tid == pid
    assert taken.main.frames[0].function == "stuck"
    assert len(taken.threads) == 2
    assert again.threads == taken.threads


@pytest.mark.parametrize("number", [errno.ENOSYS, errno.EPERM])
def test_an_older_kernel_does_without_descriptors_of_processes(
    number: int, directory: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refused(_: int) -> int:
        raise OSError(number, os.strerror(number))

    monkeypatch.setattr(os, "pidfd_open", refused)
    with askable(directory) as (pid, how):
        assert b"in stuck" in floor.ask(pid, how.ring, how.registered, SECONDS)


@pytest.mark.usefixtures("_no_engine")
def test_a_process_that_spins_in_c_with_the_gil_answers(directory: Path, tmp_path: Path) -> None:
    with askable(directory, str(c_spin(tmp_path))) as (pid, how):
        taken = stacks.sample([pid], SECONDS, floors={pid: how})[pid]
    assert taken.main is not None, taken.problem
    assert taken.main.frames[0].function == "stuck"


@pytest.mark.usefixtures("_no_engine")
def test_a_stopped_process_is_not_waited_for(directory: Path) -> None:
    with askable(directory) as (pid, how):
        os.kill(pid, signal.SIGSTOP)
        wait_for_state(pid, "T")
        began = time.monotonic()
        taken = stacks.sample([pid], SECONDS, floors={pid: how})[pid]
        took = time.monotonic() - began
    assert "stopped and cannot answer" in taken.problem
    assert took < SECONDS / 2


def test_a_process_that_does_not_answer_is_waited_for_no_longer_than_was_said(
    directory: Path,
) -> None:
    with askable(directory) as (pid, how):
        os.kill(pid, signal.SIGSTOP)
        wait_for_state(pid, "T")
        began = time.monotonic()
        with pytest.raises(floor.NoAnswer, match="did not answer in time"):
            floor.ask(pid, how.ring, how.registered, 0.3)
        assert time.monotonic() - began < 3.0


def test_the_file_of_stacks_is_private_and_the_pulse_names_it(directory: Path) -> None:
    with askable(directory) as (pid, how):
        pulse = read_pulse(how.ring)
        assert pulse is not None
        assert pulse.stack_signal == how.registered.signal
        path = directory / how.registered.file
        assert path.name == f"stacks.rank0.{pid}.txt"
        assert stat.S_IMODE(path.stat().st_mode) == 0o600


def test_whoever_has_a_watchdog_can_be_asked(directory: Path) -> None:
    program = (
        "import time\nfrom graphguard.watch import watchdog\nassert watchdog.start()\n"
        "def sleeps():\n    print('up', flush=True)\n    time.sleep(600)\nsleeps()\n"
    )
    environment = {"GRAPHGUARD_DIR": str(directory), "GRAPHGUARD_RING_ENTRIES": "256"}
    with running(program, **environment, GRAPHGUARD_STALL_SECONDS="600") as pid:
        (found,) = rank_states(directory, frozenset([pid]))
        how = stacks.floors_of([found])[pid]
        answer = floor.ask(pid, how.ring, how.registered, SECONDS)
    assert b"in sleeps" in answer


def test_a_signal_that_somebody_uses_is_not_taken() -> None:
    free = floor._free_signal()
    assert free is not None
    before = signal.signal(free, lambda *_: None)
    try:
        assert floor._free_signal() != free
    finally:
        signal.signal(free, before)


def test_a_file_that_grew_too_large_is_emptied_and_still_written_to(
    directory: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(floor, "MAX_FILE_BYTES", 300)
    with askable(directory) as (pid, how):
        path = directory / how.registered.file
        for _ in range(5):
            answer = floor.ask(pid, how.ring, how.registered, SECONDS)
            threads = floor.read_answer(answer, how.ring, how.registered)
            assert threads[0].frames[0].function == "stuck"
            assert threads[0].main
            assert path.stat().st_size < 3000


def test_no_other_process_is_sent_the_signal(directory: Path) -> None:
    bystander = "import time\nprint('up', flush=True)\ntime.sleep(600)\n"
    with askable(directory) as (_, how), running(bystander) as other:
        with pytest.raises(floor.NoAnswer, match="does not catch"):
            floor.ask(other, how.ring, how.registered, 1.0)
        assert state(other) in "SR"


def test_a_process_that_catches_the_signal_for_something_else_is_not_sent_it(
    directory: Path,
) -> None:
    with askable(directory) as (_, how):
        other = (
            "import signal, sys, time\n"
            f"signal.signal({how.registered.signal}, lambda *_: sys.exit(3))\n"
            "print('up', flush=True)\ntime.sleep(600)\n"
        )
        with running(other) as pid:
            with pytest.raises(floor.NoAnswer, match="does not have its file of stacks open"):
                floor.ask(pid, how.ring, how.registered, 1.0)
            assert state(pid) in "SR"


def test_after_its_process_a_ring_is_asked_nothing(directory: Path) -> None:
    with askable(directory) as (pid, how):
        pass
    with pytest.raises(floor.NoAnswer):
        floor.ask(pid, how.ring, how.registered, 1.0)


@pytest.mark.parametrize("name", ["../stacks.rank0.1.txt", "stacks.rank0.1.ring", "", "a/b", "\0"])
def test_a_name_that_is_none_of_stacks_is_not_opened(directory: Path, name: str) -> None:
    with pytest.raises(floor.NoAnswer, match="no name"):
        floor.ask(os.getpid(), directory / "x.ring", floor.Registered(40, name), 1.0)


def test_a_link_is_not_followed(directory: Path, tmp_path: Path) -> None:
    with askable(directory) as (pid, how):
        path = directory / how.registered.file
        path.unlink()
        elsewhere = tmp_path / "elsewhere"
        elsewhere.write_text("kept")
        path.symlink_to(elsewhere)
        with pytest.raises(floor.NoAnswer):
            floor.ask(pid, how.ring, how.registered, 1.0)
    assert elsewhere.read_text() == "kept"


@pytest.mark.parametrize("number", [0, int(signal.SIGKILL), int(signal.SIGTERM), 200])
def test_a_pulse_cannot_have_another_signal_sent(directory: Path, number: int) -> None:
    with askable(directory) as (pid, how):
        with pytest.raises(floor.NoAnswer, match="no real-time signal"):
            floor.ask(pid, how.ring, floor.Registered(number, how.registered.file), 1.0)
        assert state(pid) in "SR"


@pytest.mark.parametrize("answer", [b"", b"x", b"\xff" * 100, b'  File "a", line 1 in f\n'])
def test_an_answer_that_is_no_stack_is_refused(directory: Path, answer: bytes) -> None:
    registered = floor.Registered(40, "stacks.rank0.1.txt")
    with pytest.raises(ValueError, match="no stacks"):
        floor.read_answer(answer, directory / "x.ring", registered)
