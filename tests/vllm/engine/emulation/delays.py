"""Faults that take time, or end a step with an exception: a rank that its peers wait for."""

from __future__ import annotations

import ctypes
import mmap
import os
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

from tests.vllm.engine.emulation.faults import faults
from tests.vllm.engine.emulation.patching import replace
from tests.vllm.engine.emulation.recording import worker
from tests.vllm.engine.emulation.settings import Fault, FaultKind, Place, Settings

KINDS = frozenset(
    {
        FaultKind.RAISES,
        FaultKind.SPINS,
        FaultKind.SPINS_IN_C,
        FaultKind.SLEEPS,
        FaultKind.SLEEPS_AS_ANNOUNCED,
        FaultKind.COMPILES,
    }
)
ANNOUNCED_SECONDS = 60.0

SPIN = """
void graphguard_test_spin(const volatile unsigned char *released, unsigned char before) {
    while (*released == before) {
    }
}
"""
"""What spins in C. The harness compiles it: the compiler must not run in a worker that is timed."""

Function = Callable[..., Any]


class InjectedError(RuntimeError):
    """What a fault raises."""


def library(directory: Path) -> Path:
    """Return the library that spins in C."""
    return directory / "spin.so"


def release(directory: Path) -> None:
    """Let everything that spins in an engine go on."""
    with release_word(directory) as word:
        word[0] = (word[0] + 1) % 256


def release_word(directory: Path) -> mmap.mmap:
    """Map the byte whose change releases what spins. Its file is made by whoever comes first."""
    descriptor = os.open(directory / "release", os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
    try:
        os.ftruncate(descriptor, mmap.PAGESIZE)
        return mmap.mmap(descriptor, mmap.PAGESIZE)
    finally:
        os.close(descriptor)


_directory = Path()


def install(told: Settings) -> None:
    """Patch vLLM where time is taken."""
    from vllm.v1.worker.cpu_model_runner import CPUModelRunner
    from vllm.v1.worker.cpu_worker import CPUWorker
    from vllm.v1.worker.gpu_model_runner import GPUModelRunner

    global _directory  # noqa: PLW0603 - one process, one engine
    _directory = Path(told.directory)
    replace(CPUModelRunner, "load_model", _before(Place.LOAD))
    replace(CPUWorker, "determine_available_memory", _before(Place.PROFILE))
    replace(GPUModelRunner, "_capture_cudagraphs", _before(Place.CAPTURE))
    replace(GPUModelRunner, "_model_forward", _before(Place.FORWARD))


def _before(place: Place) -> Callable[[Function], Function]:
    def make(original: Function) -> Function:
        def delayed(self: Any, *args: Any, **kwargs: Any) -> Any:
            happen(place)
            return original(self, *args, **kwargs)

        return delayed

    return make


def happen(place: Place) -> None:
    """Let happen what the settings, or a line that was added since, say for this place."""
    # Runs of the model before the first step are warm-ups.
    if place is Place.FORWARD and not worker.step:
        return
    fault = faults.struck_at(place, KINDS)
    if fault is None:
        return
    worker.write("fault", detail=f"{fault.kind.value} in {place.value}")
    _HAPPENING[fault.kind](fault)
    worker.write("fault", detail=f"{fault.kind.value} is over")


def _raise(fault: Fault) -> None:
    raise InjectedError(f"injected on rank {fault.rank}")


def spin(_fault: Fault) -> None:
    """Do nothing useful, in Python."""
    with release_word(_directory) as word:
        before = word[0]
        while word[0] == before:
            pass


def _spin_in_c(_fault: Fault) -> None:
    # PyDLL, and not CDLL: it keeps the lock of the interpreter.
    spinning = ctypes.PyDLL(str(library(_directory))).graphguard_test_spin
    word = release_word(_directory)
    released = (ctypes.c_ubyte * 1).from_buffer(word)
    spinning(released, ctypes.c_ubyte(word[0]))
    del released
    word.close()


def _sleep(fault: Fault) -> None:
    time.sleep(fault.seconds)


def _sleep_as_announced(fault: Fault) -> None:
    import graphguard

    with graphguard.slow("a test sleeps", ANNOUNCED_SECONDS):
        time.sleep(fault.seconds)


def _compile(_fault: Fault) -> None:
    """Compile something that the compiler is busy with for a while, whatever is in its caches."""
    import torch

    os.environ["TORCHINDUCTOR_CACHE_DIR"] = str(_directory / f"inductor-{os.getpid()}")

    def many(x: torch.Tensor) -> torch.Tensor:
        for layer in range(3):
            x = torch.softmax(torch.sin(x * layer) @ x.T @ x, dim=-1) + torch.cumsum(x, 0)
        return x

    torch.compile(many, fullgraph=True)(torch.randn(33, 65))


_HAPPENING: dict[FaultKind, Callable[[Fault], None]] = {
    FaultKind.RAISES: _raise,
    FaultKind.SPINS: spin,
    FaultKind.SPINS_IN_C: _spin_in_c,
    FaultKind.SLEEPS: _sleep,
    FaultKind.SLEEPS_AS_ANNOUNCED: _sleep_as_announced,
    FaultKind.COMPILES: _compile,
}
