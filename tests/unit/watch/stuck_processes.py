"""Real processes that are stuck in the ways that stalls are made of."""

from __future__ import annotations

import os
import subprocess
import sys
import sysconfig
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from tests.unit.watch.waiting import until

PYTHON_SPINNER = """
import threading
def waits_for_ever():
    threading.Event().wait()
def spins():
    print("up", flush=True)
    while True:
        pass
threading.Thread(target=waits_for_ever, name="waiter", daemon=True).start()
spins()
"""

C_SPINNER = """
import ctypes, sys
library = ctypes.PyDLL(sys.argv[1])
def launches():
    print("up", flush=True)
    library.spins_in_c()
launches()
"""

SLEEPER = """
import time
def sleeps():
    print("up", flush=True)
    time.sleep(600)
sleeps()
"""

IN_THE_KERNEL = """
import ctypes, sys
library = ctypes.CDLL(sys.argv[1])
def waits_for_the_kernel():
    print("up", flush=True)
    library.waits_in_the_kernel(sys.argv[2].encode())
    import time
    while True:
        time.sleep(0.01)
waits_for_the_kernel()
"""

_C = """
#include <fcntl.h>
#include <unistd.h>
volatile int going = 1;
void spins_in_c(void) { while (going) {} }
// A process does not go on before its vfork'ed child, which waits until the pipe is opened.
void waits_in_the_kernel(const char* pipe) {
    if (vfork() == 0) {
        open(pipe, O_RDONLY);
        _exit(0);
    }
}
"""


def c_spin(directory: Path) -> Path:
    """Compile a function that spins for ever."""
    source, library = directory / "spins.c", directory / "libspins.so"
    source.write_text(_C)
    compiler = sysconfig.get_config_var("CC") or "cc"
    subprocess.run(
        [compiler.split()[0], "-shared", "-fPIC", "-g", "-o", str(library), str(source)],
        check=True,
        timeout=60,
    )
    return library


@contextmanager
def running(program: str, *arguments: str, **environment: str) -> Iterator[int]:
    """Run a Python program until the block ends; it says ``up`` when it has come so far."""
    process = subprocess.Popen(
        [sys.executable, "-c", program, *arguments],
        stdout=subprocess.PIPE,
        env={**os.environ, **environment},
    )
    try:
        assert process.stdout is not None
        assert process.stdout.readline() == b"up\n"
        yield process.pid
    finally:
        process.kill()
        process.wait(30)
        if process.stdout is not None:
            process.stdout.close()


def state(pid: int) -> str:
    """Return the letter for what a process does."""
    return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0]


def wait_for_state(pid: int, letters: str) -> None:
    """Wait until a process is in one of these states."""
    until(lambda: state(pid) in letters)
