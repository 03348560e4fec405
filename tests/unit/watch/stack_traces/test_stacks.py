"""Stacks of real processes: each engine, each way to be stuck, and the bounds."""

from __future__ import annotations

import contextlib
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from graphguard.watch.stack_traces import stack_engines, stacks, tracing_rights
from graphguard.watch.stack_traces.stack_model import ProcessStacks, as_text
from tests.unit.watch.stuck_processes import (
    C_SPINNER,
    IN_THE_KERNEL,
    PYTHON_SPINNER,
    SLEEPER,
    c_spin,
    running,
    state,
    wait_for_state,
)

SECONDS = 20.0
"""On a loaded machine. What is measured of it is told apart."""


def functions(taken: ProcessStacks) -> list[str]:
    assert taken.main is not None, taken.problem
    return [frame.function for frame in taken.main.frames]


def without(monkeypatch: pytest.MonkeyPatch, *engines: str) -> None:
    """Hide engines, as if they were not installed."""
    found = stack_engines._program
    monkeypatch.setattr(
        stack_engines, "_program", lambda name: None if name in engines else found(name)
    )


@pytest.mark.parametrize(("hidden", "engine"), [("", "py-spy"), ("py-spy", "pystack")])
def test_each_engine_says_where_the_main_thread_spins(
    hidden: str, engine: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    without(monkeypatch, hidden)
    with running(PYTHON_SPINNER) as pid:
        taken = stacks.sample([pid], SECONDS)[pid]
    assert taken.engine == engine, taken.problem
    assert functions(taken)[0] == "spins"
    assert taken.main is not None
    assert taken.main.frames[0].file == "<string>"
    assert taken.main.frames[0].line in (6, 7, 8)
    assert taken.main.holds_gil
    assert taken.threads[0] is taken.main
    assert len(taken.threads) == 2


def test_a_spin_in_c_that_holds_the_gil_is_named_by_its_caller_and_natively_itself(
    tmp_path: Path,
) -> None:
    with running(C_SPINNER, str(c_spin(tmp_path))) as pid:
        python = stacks.sample([pid], SECONDS)[pid]
        native = stacks.sample_native([pid], SECONDS)[pid]
        assert state(pid) == "R"
    assert functions(python)[0] == "launches"
    assert "spins_in_c" in functions(native)
    assert native.main is not None
    frame = next(each for each in native.main.frames if each.function == "spins_in_c")
    assert frame.native
    assert frame.file.endswith("spins.c")


@pytest.mark.parametrize("hidden", ["", "pystack"])
def test_native_frames_are_had_by_either_engine(
    hidden: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    without(monkeypatch, hidden)
    with running(C_SPINNER, str(c_spin(tmp_path))) as pid:
        native = stacks.sample_native([pid], SECONDS)[pid]
    assert native.engine == ("py-spy" if hidden else "pystack"), native.problem
    assert "spins_in_c" in functions(native)


def test_a_stopped_process_has_stacks_and_stays_stopped() -> None:
    with running(SLEEPER) as pid:
        os.kill(pid, signal.SIGSTOP)
        wait_for_state(pid, "T")
        python = stacks.sample([pid], SECONDS)[pid]
        native = stacks.sample_native([pid], SECONDS)[pid]
        assert state(pid) == "T"
    assert functions(python)[0] == "sleeps"
    assert "sleeps" in functions(native)


def test_a_process_in_the_kernel_has_python_stacks_and_is_never_left_stopped(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    pipe = tmp_path / "pipe"
    os.mkfifo(pipe)
    with running(IN_THE_KERNEL, str(c_spin(tmp_path)), str(pipe)) as pid:
        wait_for_state(pid, "D")
        python = stacks.sample([pid], SECONDS)[pid]
        native = stacks.sample_native([pid], SECONDS)[pid]
        # As if the wait had begun while the engines were looking.
        monkeypatch.setattr(stacks, "_in_the_kernel", lambda _: False)
        stacks.sample_native([pid], 3.0)
        assert state(pid) == "D"
        os.close(os.open(pipe, os.O_WRONLY))
        wait_for_state(pid, "SR")
        time.sleep(0.1)
        assert state(pid) in "SR"
    assert functions(python)[0] == "waits_for_the_kernel"
    assert "in the kernel and cannot be stopped" in native.problem


def test_a_process_that_is_gone_is_said_to_be_gone() -> None:
    with running(SLEEPER) as pid:
        pass
    taken = stacks.sample([pid], SECONDS)[pid]
    assert taken.threads == ()
    assert taken.problem == "the process is gone"


def test_a_zombie_is_said_to_be_one() -> None:
    process = subprocess.Popen([sys.executable, "-c", "pass"])
    try:
        wait_for_state(process.pid, "Z")
        taken = stacks.sample([process.pid], SECONDS)[process.pid]
    finally:
        process.wait(30)
    assert taken.problem == "the process is a zombie"


def test_a_program_that_is_not_python_has_no_stacks_and_a_reason() -> None:
    process = subprocess.Popen(["sleep", "600"])
    try:
        taken = stacks.sample([process.pid], SECONDS)[process.pid]
    finally:
        process.kill()
        process.wait(30)
    assert taken.threads == ()
    assert "py-spy: it ended with 1" in taken.problem
    assert "pystack: it ended with" in taken.problem
    assert "Stack backtrace" not in taken.problem


def test_without_an_engine_the_reason_says_what_to_install(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    without(monkeypatch, "py-spy", "pystack")
    taken = stacks.sample([os.getpid()], SECONDS)[os.getpid()]
    assert taken.threads == ()
    assert "graphguard[stacks]" in taken.problem


def test_many_processes_are_sampled_at_once() -> None:
    with running(SLEEPER) as one, running(PYTHON_SPINNER) as two, running(SLEEPER) as three:
        taken = stacks.sample([one, two, three, one], SECONDS)
    assert list(taken) == [one, two, three]
    assert functions(taken[one])[0] == "sleeps"
    assert functions(taken[two])[0] == "spins"


def test_an_engine_that_hangs_is_ended_and_the_next_is_asked(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    slow = tmp_path / "py-spy"
    slow.write_text("#!/bin/sh\nsleep 600\n")
    slow.chmod(0o700)
    found = stack_engines._program
    monkeypatch.setattr(
        stack_engines, "_program", lambda name: str(slow) if name == "py-spy" else found(name)
    )
    with running(SLEEPER) as pid:
        began = time.monotonic()
        taken = stacks.sample([pid], 5.0)[pid]
        took = time.monotonic() - began
    assert taken.engine == "pystack", taken.problem
    assert "py-spy: it took longer than" in taken.problem
    assert took < 6.0


def test_the_answer_is_there_in_time_even_if_no_engine_is(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    slow = tmp_path / "engine"
    slow.write_text("#!/bin/sh\nsleep 600\n")
    slow.chmod(0o700)
    monkeypatch.setattr(stack_engines, "_program", lambda _: str(slow))
    with running(SLEEPER) as pid:
        began = time.monotonic()
        taken = stacks.sample([pid], 0.5)[pid]
        took = time.monotonic() - began
    assert taken.threads == ()
    assert taken.problem
    assert took < 2.0


def test_a_process_that_an_engine_left_stopped_goes_on(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with running(SLEEPER) as pid:
        careless = tmp_path / "engine"
        careless.write_text(f"#!/bin/sh\nkill -STOP {pid}\nsleep 600\n")
        careless.chmod(0o700)
        monkeypatch.setattr(stack_engines, "_program", lambda _: str(careless))
        stacks.sample_native([pid], 2.0)
        wait_for_state(pid, "S")


@pytest.mark.skipif(os.geteuid() != 0, reason="only root can give up CAP_SYS_PTRACE")
def test_a_missing_capability_is_said_with_a_hint(tmp_path: Path) -> None:
    # As root in a container: another process of root has capabilities that this one lacks.
    program = (
        "import sys\n"
        "from graphguard.watch.stack_traces import stacks\n"
        "print(stacks.sample([int(sys.argv[1])], 20.0)[int(sys.argv[1])].problem)\n"
    )
    with running(SLEEPER) as pid:
        told = subprocess.run(
            ["setpriv", "--bounding-set=-sys_ptrace", sys.executable, "-c", program, str(pid)],
            capture_output=True,
            text=True,
            timeout=60,
            check=True,
        )
    assert "CAP_SYS_PTRACE" in told.stdout
    assert "py-spy" in told.stdout
    assert "pystack" in told.stdout


@pytest.mark.parametrize("scope", ["1", "2", "3"])
def test_what_yama_forbids_is_said_with_how_to_allow_it(
    scope: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(tracing_rights, "_has_capability", lambda: False)
    monkeypatch.setattr(tracing_rights, "_scope", lambda: scope)
    why = tracing_rights.why_refused(os.getpid())
    assert f"ptrace_scope is {scope}" in why
    assert "ptrace_scope=0" in why
    assert "--cap-add=SYS_PTRACE" in why


WORDS = st.sampled_from(
    [
        "Traceback for thread 7 (python) [Has the GIL] (most recent call last):\n",
        '    (Python) File "/x.py", line 12, in f\n',
        '    (C) File "???", line 0, in ??? (/lib/libc.so.6)\n',
        "        self.run()\n",
        "\n",
        "99999999999999999999",
        "(",
        "\x00",
    ]
)


@given(st.lists(WORDS | st.text(max_size=20), max_size=20).map("".join))
def test_whatever_pystack_writes_is_stacks_or_refused(text: str) -> None:
    try:
        threads = stack_engines.read_pystack(text.encode("utf-8", "surrogatepass"), 7)
    except ValueError:
        return
    as_text(ProcessStacks(7, "pystack", threads))


@given(st.binary(max_size=100))
def test_whatever_py_spy_writes_is_stacks_or_refused(output: bytes) -> None:
    with contextlib.suppress(ValueError):
        stack_engines.read_py_spy(output, 7)


@pytest.mark.parametrize("output", [b"", b"null", b"[]x", b'{"a": 1}', b"[1]", b"\xff\xfe"])
def test_output_that_is_no_stack_is_refused(output: bytes) -> None:
    with pytest.raises(ValueError, match="py-spy wrote no stacks"):
        stack_engines.read_py_spy(output, 1)
    with pytest.raises(ValueError, match="pystack wrote no stacks"):
        stack_engines.read_pystack(output, 1)
