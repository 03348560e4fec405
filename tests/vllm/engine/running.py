"""What an offline engine and a server have in common."""

from __future__ import annotations

import shutil
import tempfile
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import msgspec

from tests.vllm.engine import experts_model, model, trace
from tests.vllm.engine.emulation.settings import Emulation, Fault, file_of_faults
from tests.vllm.engine.environment import environment
from tests.vllm.engine.processes import EngineProcesses
from tests.vllm.engine.trace import Trace

START_SECONDS = 400.0
GENERATE_SECONDS = 120.0

ARGUMENTS: dict[str, Any] = {
    # Sums of float32 differ by so little between batches of different sizes that the same tokens
    # come out of them.
    "dtype": "float32",
    "seed": 0,
    "tensor_parallel_size": 2,
    "max_model_len": 2048,
    "max_num_seqs": 16,
    "compilation_config": {"mode": 0},
    # A prompt that comes again must be computed again.
    "enable_prefix_caching": False,
    "speculative_config": {"method": "mtp", "num_speculative_tokens": 1},
}


class EngineFailed(RuntimeError):
    """The engine failed or did not answer.

    Attributes:
        kind: The name of the exception in the engine's process, or ``timeout`` or ``ended``.
        log: What it printed.
    """

    def __init__(self, kind: str, message: str, log: str) -> None:
        causes = "\n".join(_worker_errors(log))
        super().__init__(f"{kind}: {message}\n{causes}\n{log[-4000:]}")
        self.kind = kind
        self.log = log


def _worker_errors(log: str) -> list[str]:
    # The front end only says that the engine core failed, long after a worker said why.
    lines = log.splitlines()
    return [line for line in lines if "Worker" in line and "Error: " in line][:4]


class Run:
    """An engine that runs.

    Attributes:
        directory: Where its files are; graphguard's are in ``graphguard``.
        processes: Its processes.
    """

    def __init__(self, directory: Path, processes: EngineProcesses) -> None:
        self.directory = directory
        self.processes = processes

    @property
    def graphguard(self) -> Path:
        """The GRAPHGUARD_DIR of the engine."""
        return self.directory / "graphguard"

    @property
    def log(self) -> str:
        """What the engine has printed so far."""
        return self.processes.text()

    def trace(self, rank: int) -> Trace:
        """Return what the worker of a rank has done so far."""
        return trace.read(self.directory, rank)

    def inject(self, fault: Fault) -> None:
        """Let a fault happen in the next step that it fits."""
        with file_of_faults(self.directory).open("ab") as file:
            file.write(msgspec.json.encode(fault) + b"\n")

    def step(self, rank: int) -> int:
        """Return the number of the step that the worker of a rank has come to."""
        return max((event.step for event in self.trace(rank).events), default=0)


@contextmanager
def running(
    command: Sequence[str],
    directory: Path,
    *,
    emulate: Emulation | bool,
    graphguard: str | None,
    faults: Sequence[Fault],
    step_seconds: int,
    extra_environment: dict[str, str] | None,
    gently: float,
    niceness: int = 5,
) -> Iterator[EngineProcesses]:
    """Run a command as an engine, and end it and all that it left behind."""
    emulation = emulate if isinstance(emulate, Emulation) else Emulation()
    processes = EngineProcesses(
        list(command),
        environment(
            directory,
            emulation=Emulation(mode="NONE") if emulate is False else emulation,
            faults=tuple(faults),
            graphguard=graphguard,
            step_seconds=step_seconds,
            extra=extra_environment or {},
        ),
        directory / "engine.log",
        directory,
        niceness,
    )
    try:
        yield processes
    finally:
        processes.end(gently)


@contextmanager
def directory_with_model(*, experts: bool = False) -> Iterator[Path]:
    """Make a directory for one engine, with the model in ``model``: the one with experts or not."""
    directory = Path(tempfile.mkdtemp(prefix="graphguard-engine-"))
    try:
        (experts_model if experts else model).write(directory / "model")
        file_of_faults(directory).touch()
        yield directory
    finally:
        shutil.rmtree(directory, ignore_errors=True)
