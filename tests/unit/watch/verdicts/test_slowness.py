"""Whether real processes are seen to be slow, or stuck."""

from __future__ import annotations

import os
import shutil
import signal
import subprocess
import sys
import textwrap
import time
from collections.abc import Callable, Iterator
from contextlib import suppress
from pathlib import Path

import msgspec
import pytest

from graphguard.watch.examining.examined_job import with_descendants
from graphguard.watch.looking.processes import ThreadState, process_state
from graphguard.watch.looking.ranks import RankState
from graphguard.watch.stack_traces.stack_model import Frame, ProcessStacks, ThreadStack
from graphguard.watch.verdicts.slowness import (
    SlowSigns,
    slow_signs,
    with_named_sleeps,
    with_own_reads,
)
from tests.unit.watch.states import rank

Start = Callable[..., subprocess.Popen[bytes]]


@pytest.fixture
def start(tmp_path: Path) -> Iterator[Start]:
    """Start a Python program and wait until it says that it has begun."""
    started: list[subprocess.Popen[bytes]] = []

    def run(program: str, *arguments: str) -> subprocess.Popen[bytes]:
        file = tmp_path / "program.py"
        file.write_text(textwrap.dedent(program))
        process = subprocess.Popen(
            [sys.executable, file, *arguments], stdout=subprocess.PIPE, start_new_session=True
        )
        started.append(process)
        assert process.stdout is not None
        assert process.stdout.readline() == b"begun\n"
        return process

    yield run
    for process in started:
        with suppress(ProcessLookupError):
            os.killpg(process.pid, signal.SIGKILL)
        process.wait()
        assert process.stdout is not None
        process.stdout.close()


def look(pid: int) -> RankState:
    state = msgspec.structs.replace(
        rank(0), pid=pid, process=process_state(pid), looked_ns=time.time_ns()
    )
    return with_descendants(with_own_reads(with_named_sleeps(state, [pid])))


def signs(pid: int, between: float = 0.4, first_run: str = "") -> SlowSigns:
    before = look(pid)
    time.sleep(between)
    return slow_signs(before, look(pid), None, pid, first_run)


def until(pid: int, what: str, seconds: float = 20.0) -> SlowSigns:
    """Look until something is seen; a process on a loaded machine may take a while to begin."""
    end = time.monotonic() + seconds
    while True:
        told = signs(pid)
        if any(what in each.what for each in told.certain) or time.monotonic() > end:
            return told


def test_one_sleep_with_an_end_is_slow(start: Start) -> None:
    process = start("import time; print('begun', flush=True); time.sleep(600)")
    assert "sleeps for a time" in until(process.pid, "sleeps").certain[0].what


def test_a_loop_of_short_sleeps_is_not(start: Start) -> None:
    process = start(
        """
        import time
        print('begun', flush=True)
        while True:
            time.sleep(0.02)
        """
    )
    time.sleep(0.5)
    assert signs(process.pid, 0.6).certain == ()


def test_a_loop_in_python_is_not(start: Start) -> None:
    process = start("print('begun', flush=True)\nwhile True: pass")
    assert signs(process.pid).certain == ()


def test_a_first_run_that_computes_is_likely_to_be_slow(start: Start) -> None:
    process = start("print('begun', flush=True)\nwhile True: pass")
    end = time.monotonic() + 20
    while not (told := signs(process.pid, 0.4, "it runs target 4x2 for the first time")).supporting:
        assert time.monotonic() < end
    assert told.certain == ()


def test_a_wait_for_another_process_is_not(start: Start) -> None:
    process = start(
        """
        import os, threading
        print('begun', flush=True)
        os.read(os.pipe()[0], 1)
        """
    )
    assert signs(process.pid).certain == ()


@pytest.mark.skipif(shutil.which("cc") is None, reason="there is no C compiler")
def test_a_loop_in_c_with_the_gil_held_is_not(start: Start, tmp_path: Path) -> None:
    source = tmp_path / "spin.c"
    source.write_text("void spin(void) { for (volatile int i = 0;; ++i) {} }\n")
    library = tmp_path / "libspin.so"
    subprocess.run(["cc", "-shared", "-fPIC", "-o", library, source], check=True, timeout=60)
    process = start(
        """
        import ctypes, sys
        spin = ctypes.PyDLL(sys.argv[1]).spin
        print('begun', flush=True)
        spin()
        """,
        str(library),
    )
    assert signs(process.pid).certain == ()


@pytest.mark.skipif(shutil.which("cc") is None, reason="there is no C compiler")
def test_a_compiler_that_it_has_started_is_slow(start: Start, tmp_path: Path) -> None:
    source = tmp_path / "long.c"
    # A nest of macros that takes the compiler long to expand.
    lines = ["#define A0(x) ((x) + (x) * 3 - ((x) ^ 5))"]
    lines += [f"#define A{n}(x) A{n - 1}(A{n - 1}(x) + {n})" for n in range(1, 6)]
    source.write_text("\n".join([*lines, "int f(int x) { return A3(x); }", ""]))
    process = start(
        """
        import subprocess, sys
        print('begun', flush=True)
        shell = 'while :; do cc -O2 -c -o /dev/null "$0"; done'
        subprocess.run(['sh', '-c', shell, sys.argv[1]])
        """,
        str(source),
    )
    told = until(process.pid, "compiles")
    assert any("compiles" in each.what for each in told.certain)


def test_a_child_that_is_no_compiler_is_not(start: Start) -> None:
    process = start(
        """
        import subprocess, sys
        child = subprocess.Popen([sys.executable, '-c', 'while True: pass'])
        print('begun', flush=True)
        try:
            child.wait(30)
        finally:
            child.kill()
        """
    )
    assert signs(process.pid).certain == ()


def test_a_disk_that_is_read_is_slow(start: Start, tmp_path: Path) -> None:
    (tmp_path / "weights").write_bytes(bytes(2**20))
    process = start(
        """
        import sys
        print('begun', flush=True)
        while True:
            open(sys.argv[1], 'rb').read()
        """,
        str(tmp_path / "weights"),
    )
    told = until(process.pid, "has read")
    assert any("has read" in each.what for each in told.certain)


def test_what_a_child_has_read_that_has_ended_is_not(start: Start, tmp_path: Path) -> None:
    (tmp_path / "weights").write_bytes(bytes(2**20))
    process = start(
        """
        import subprocess, sys
        print('begun', flush=True)
        while True:
            subprocess.run(['cat', sys.argv[1], sys.argv[1]], stdout=subprocess.DEVNULL)
        """,
        str(tmp_path / "weights"),
    )
    told = [signs(process.pid, 0.6) for _ in range(3)]
    assert not any(each.certain for each in told)


def test_a_process_that_starts_another_does_not_wait_for_a_disk(
    start: Start, tmp_path: Path
) -> None:
    fifo = tmp_path / "fifo"
    os.mkfifo(fifo)
    process = start(
        """
        import os, sys
        print('begun', flush=True)
        # The child stands in the opening of the FIFO, before its exec.
        opened = [(os.POSIX_SPAWN_OPEN, 5, sys.argv[1], os.O_RDONLY, 0)]
        os.posix_spawn('/bin/true', ['true'], {}, file_actions=opened)
        """,
        str(fifo),
    )
    end = time.monotonic() + 20.0
    while process_state(process.pid).state != "disk":
        assert time.monotonic() < end
        time.sleep(0.05)

    assert not signs(process.pid).certain


@pytest.mark.parametrize(("later", "waits"), [(7, True), (8, False)])
def test_one_wait_for_a_disk_is_slow_and_many_short_ones_are_not(later: int, waits: bool) -> None:
    def waiting(switches: int) -> RankState:
        state = rank(0)
        thread = ThreadState(
            tid=state.pid, name="main", state="disk", cpu_ns=0, switches=switches, waits_in=""
        )
        process = msgspec.structs.replace(state.process, state="disk", threads=(thread,))
        return msgspec.structs.replace(state, process=process)

    told = slow_signs(waiting(7), waiting(later), None, rank(0).pid)
    assert [each.what for each in told.certain] == ["it waits for a disk"] * waits


FRAMES = {
    "torch.compile": ("_compile", "/s/torch/_dynamo/convert_frame.py"),
    "Inductor": ("compile_fx", "/s/torch/_inductor/compile_fx.py"),
    "the tuning of Inductor": (
        "benchmark_all_configs",
        "/s/torch/_inductor/runtime/triton_heuristics.py",
    ),
    "Triton": ("make_ptx", "/s/triton/backends/nvidia/compiler.py"),
    "the tuning of Triton": ("_bench", "/s/triton/runtime/autotuner.py"),
    "FlashInfer's compiler": ("build", "/s/flashinfer/jit/core.py"),
    "the tuning of FlashInfer": ("choose_one", "/s/flashinfer/autotuner.py"),
    "DeepGEMM's compiler": ("build", "/s/deep_gemm/jit/compiler.py"),
    "the build of an extension of torch": ("load", "/s/torch/utils/cpp_extension.py"),
}


@pytest.mark.parametrize("what", FRAMES)
def test_where_a_stack_tells_of_a_compiler(what: str) -> None:
    function, file = FRAMES[what]
    frames = (Frame("wait", "/lib/subprocess.py", 1), Frame(function, file, 2))
    stacks = ProcessStacks(1000, "py-spy", (ThreadStack(1000, "", frames, main=True),))
    told = slow_signs(None, rank(0), stacks, 1000)
    assert f"it is in {what}:" in told.certain[0].what


@pytest.mark.parametrize(
    ("function", "file"),
    [
        ("_fn", "/s/torch/_dynamo/eval_frame.py"),
        ("call", "/s/torch/_inductor/utils.py"),
        ("run", "/s/triton/runtime/jit.py"),
        ("run", "/s/torch/_inductor/runtime/triton_heuristics.py"),
        ("forward", "/app/compiler/model.py"),
    ],
)
def test_what_compiled_code_passes_through_each_time_is_no_compiler(
    function: str, file: str
) -> None:
    stacks = ProcessStacks(
        1000, "py-spy", (ThreadStack(1000, "", (Frame(function, file, 2),), main=True),)
    )
    assert slow_signs(None, rank(0), stacks, 1000).certain == ()
