"""Every environment variable that graphguard reads, in one place."""

from __future__ import annotations

import os
from enum import Enum
from typing import TYPE_CHECKING

import msgspec

from graphguard.errors import ConfigurationError

if TYPE_CHECKING:
    from pathlib import Path


class Mode(str, Enum):
    """How far the guard goes."""

    OFF = "off"
    """Choose a graph and launch it. Nothing is recorded, nothing is checked."""
    OBSERVE = "observe"
    """Record and check, and never interfere."""
    ENFORCE = "enforce"
    """Act on the verdict."""

    def __str__(self) -> str:
        return self.value


class Variable(msgspec.Struct, frozen=True):
    """An environment variable: its name, what it is for, and what holds without it."""

    name: str
    meaning: str
    default: str

    @property
    def value(self) -> str | None:
        """What the environment says, or None if it says nothing."""
        return os.environ.get(self.name) or None


MODE = Variable(
    "GRAPHGUARD_MODE", "off, observe or enforce, for guards that name no mode", "observe"
)
DIRECTORY = Variable(
    "GRAPHGUARD_DIR",
    "where manifests and black boxes are written; without it no manifest is written, and black "
    "boxes go to a private directory of the user",
    "",
)
RING_ENTRIES = Variable(
    "GRAPHGUARD_RING_ENTRIES",
    "how many records the black box of a process keeps, rounded up to a power of two; 0 for no "
    "black box",
    "16384",
)
WHEN_STUCK = Variable(
    "GRAPHGUARD_WHEN_STUCK",
    "exit or report: what a rank does, when enforcing, that waits in a launch which another rank "
    "has refused or will never reach",
    "exit",
)
MAX_RING_ENTRIES = 2**24
AGREE_SECONDS = Variable(
    "GRAPHGUARD_AGREE_SECONDS",
    "how long the ranks of a group wait for each other when their captures are compared, in "
    "seconds; without it 300 when enforcing, and 30 in observe, where the program matters more",
    "",
)
_AGREE_SECONDS_ENFORCE = 300.0
_AGREE_SECONDS_OBSERVE = 30.0
MAX_AGREE_SECONDS = 86_400.0
METRICS = Variable(
    "GRAPHGUARD_METRICS",
    "auto or off: whether this process counts what it does for Prometheus, where the package "
    "prometheus-client is installed",
    "auto",
)
METRICS_RUN = Variable(
    "GRAPHGUARD_METRICS_RUN",
    "which processes' metrics are shown together; set by the first process for its children",
    "",
)
DECISIONS = Variable(
    "GRAPHGUARD_DECISIONS",
    "a file or a directory: where each process writes its decisions as JSON lines, each process "
    "into a file of its own; without it they are not written",
    "",
)
ON_MISMATCH = Variable(
    "GRAPHGUARD_ON_MISMATCH",
    "degrade, eager or raise: what vLLM does, when enforcing, with a step whose graph does not fit",
    "degrade",
)
PADDED = Variable(
    "GRAPHGUARD_PADDED",
    "allow or avoid: whether vLLM replays full graphs, when enforcing, for smaller batches",
    "allow",
)
UNIFORM_GRAPHS = Variable(
    "GRAPHGUARD_UNIFORM_GRAPHS",
    "0 or 1: whether vLLM's V1 runner also captures full graphs for decodes of one token each, "
    "beside those that verify drafts",
    "0",
)
DECODE_STEPS = Variable(
    "GRAPHGUARD_DECODE_STEPS",
    "how many steps of decodes the uniform scheduler for vLLM runs at most while prefills wait",
    "4",
)
RUN = Variable(
    "GRAPHGUARD_RUN",
    "where each Python process of graphguard run says that it has started; set by that command",
    "",
)
INSTALL = Variable(
    "GRAPHGUARD_INSTALL",
    "0 or 1: whether every CUDA graph of torch is recorded in this process, from the import of "
    "torch on",
    "0",
)
CUDA_DRIVER = Variable(
    "GRAPHGUARD_CUDA_DRIVER",
    "the library that is opened as the CUDA driver; for tests",
    "libcuda.so.1",
)
INTERPOSE = Variable(
    "GRAPHGUARD_INTERPOSE",
    "0 or 1: whether NCCL's interposer is loaded when graphguard is imported, which has to be "
    "before torch and cupy",
    "0",
)
NCCL_PLUGIN = Variable(
    "GRAPHGUARD_NCCL_PLUGIN",
    "0 or 1: whether NCCL is given graphguard's profiler plugin when graphguard is imported, which "
    "has to be before the first communicator",
    "0",
)
NEXT_PLUGIN = Variable(
    "GRAPHGUARD_NEXT_PROFILER_PLUGIN",
    "another profiler plugin that NCCL's events are passed on to, in the forms of "
    "NCCL_PROFILER_PLUGIN; without it, the one that was there before",
    "",
)
NCCL_LIBRARY = Variable(
    "GRAPHGUARD_NCCL_SO",
    "the file of the real NCCL that the interposer calls; without it, the one that is loaded, the "
    "one of NVIDIA's wheel, or the one that the loader finds",
    "",
)
STALL_SECONDS = Variable(
    "GRAPHGUARD_STALL_SECONDS",
    "how long a launch or a step may be under way before it is looked at as a stall, in seconds; "
    "0 for no watchdog",
    "5",
)
STALL_STARTUP_SECONDS = Variable(
    "GRAPHGUARD_STALL_STARTUP_SECONDS",
    "the same for what an engine does at its start: loading, compiling, capturing",
    "60",
)
SLOW_SECONDS = Variable(
    "GRAPHGUARD_SLOW_SECONDS",
    "how long what is seen to be slow and not stuck may go on before it is a stall all the same, "
    "in seconds",
    "300",
)
ON_STALL = Variable(
    "GRAPHGUARD_ON_STALL",
    "report, abort or signal:COMMAND: what is done about a stall after its evidence is kept: "
    "nothing more, end the processes of all ranks of this node, or run a command",
    "report",
)
STALL_LOG = Variable(
    "GRAPHGUARD_STALL_LOG",
    "the log file of the engine, whose last lines are kept with the evidence of a stall; without "
    "it, what the output of the processes goes to if that is a file",
    "",
)
STALL_COREDUMP = Variable(
    "GRAPHGUARD_STALL_COREDUMP",
    "0 or 1: whether processes that CUDA lets dump their GPUs on request are asked to at a stall; "
    "that stops the GPUs and may write gigabytes",
    "0",
)
BREADCRUMBS = Variable(
    "GRAPHGUARD_BREADCRUMBS",
    "0 or 1: whether captured graphs get marks that say how far a replay got",
    "0",
)
MAX_STALL_SECONDS = 86_400.0
VARIABLES = (
    MODE,
    DIRECTORY,
    RING_ENTRIES,
    WHEN_STUCK,
    AGREE_SECONDS,
    ON_MISMATCH,
    PADDED,
    UNIFORM_GRAPHS,
    DECODE_STEPS,
    METRICS,
    METRICS_RUN,
    DECISIONS,
    RUN,
    INSTALL,
    CUDA_DRIVER,
    NCCL_PLUGIN,
    NEXT_PLUGIN,
    STALL_SECONDS,
    STALL_STARTUP_SECONDS,
    SLOW_SECONDS,
    ON_STALL,
    STALL_LOG,
    STALL_COREDUMP,
    BREADCRUMBS,
)


def mode() -> Mode:
    """Return the mode that the environment asks for, ``observe`` if it asks for none.

    Raises:
        ConfigurationError: If it asks for something else.
    """
    return parse_mode(MODE.value or MODE.default, f"the environment variable {MODE.name}")


def parse_mode(text: str, source: str) -> Mode:
    """Return the mode of that name.

    Raises:
        ConfigurationError: If there is none; ``source`` says who asked for it.
    """
    try:
        return Mode(text)
    except ValueError:
        raise ConfigurationError(
            f"{source} asks for the mode {text!r}, which does not exist",
            hint="use off, observe or enforce",
        ) from None


def directory() -> Path | None:
    """Return where manifests are to be written, or None if nowhere."""
    # Not needed by programs that name no directory, and slow to import.
    from pathlib import Path

    return Path(value) if (value := DIRECTORY.value) else None


def ring_entries() -> int:
    """Return how many records a black box is to keep; 0 if there is to be none.

    Raises:
        ConfigurationError: If the environment does not say a number, or too large a one.
    """
    text = RING_ENTRIES.value or RING_ENTRIES.default
    if text.isascii() and text.isdigit() and len(text) <= 8 and int(text) <= MAX_RING_ENTRIES:
        return int(text)
    raise ConfigurationError(
        f"the environment variable {RING_ENTRIES.name} is {text!r}",
        hint=f"give a number of records up to {MAX_RING_ENTRIES}, or 0 for no black box",
    )


def agree_seconds(mode: Mode) -> float:
    """Return how long ranks wait for each other when their captures are compared, in seconds.

    Args:
        mode: The mode of the guards. In observe a rank without a guard may hold up the others, and
            the engine around them, for no longer than a slow capture takes.

    Raises:
        ConfigurationError: If the environment does not say a number of seconds, or too large a one.
    """
    text = AGREE_SECONDS.value
    if text is None:
        return _AGREE_SECONDS_ENFORCE if mode is Mode.ENFORCE else _AGREE_SECONDS_OBSERVE
    try:
        seconds = float(text)
    except ValueError:
        seconds = -1.0
    # Written so that it is false for what is not a number, too.
    if 0 < seconds <= MAX_AGREE_SECONDS:
        return seconds
    raise ConfigurationError(
        f"the environment variable {AGREE_SECONDS.name} is {text!r}",
        hint=f"give a number of seconds above 0 and up to {MAX_AGREE_SECONDS:g}",
    )


def exits_when_stuck() -> bool:
    """Return whether a rank that waits in vain is to end.

    Raises:
        ConfigurationError: If the environment says neither ``exit`` nor ``report``.
    """
    text = WHEN_STUCK.value or WHEN_STUCK.default
    if text not in ("exit", "report"):
        raise ConfigurationError(
            f"the environment variable {WHEN_STUCK.name} is {text!r}", hint="use exit or report"
        )
    return text == "exit"


def metrics_wanted() -> bool:
    """Return whether metrics are counted where prometheus-client is installed.

    Raises:
        ConfigurationError: If the environment says neither ``auto`` nor ``off``.
    """
    text = METRICS.value or METRICS.default
    if text not in ("auto", "off"):
        raise ConfigurationError(
            f"the environment variable {METRICS.name} is {text!r}", hint="use auto or off"
        )
    return text == "auto"


def uniform_graphs_wanted() -> bool:
    """Return whether vLLM is to capture graphs for decodes of one token each, too.

    Raises:
        ConfigurationError: If the environment says neither 0 nor 1.
    """
    return _switched_on(UNIFORM_GRAPHS)


def install_wanted() -> bool:
    """Return whether every CUDA graph of torch is to be recorded.

    Raises:
        ConfigurationError: If the environment says neither 0 nor 1.
    """
    return _switched_on(INSTALL)


def _switched_on(variable: Variable) -> bool:
    text = variable.value or variable.default
    if text not in ("0", "1"):
        raise ConfigurationError(
            f"the environment variable {variable.name} is {text!r}", hint="use 0 or 1"
        )
    return text == "1"


def decode_steps() -> int:
    """Return how many steps of decodes may run while prefills wait.

    Raises:
        ConfigurationError: If the environment does not say a number from 1 to 1000.
    """
    text = DECODE_STEPS.value or DECODE_STEPS.default
    if text.isascii() and text.isdigit() and len(text) <= 4 and 1 <= int(text) <= 1000:
        return int(text)
    raise ConfigurationError(
        f"the environment variable {DECODE_STEPS.name} is {text!r}",
        hint="give a number of steps from 1 to 1000",
    )


def interposer_wanted() -> bool:
    """Return whether NCCL's interposer is to be loaded.

    Raises:
        ConfigurationError: If the environment says neither 0 nor 1.
    """
    text = INTERPOSE.value or INTERPOSE.default
    if text not in ("0", "1"):
        raise ConfigurationError(
            f"the environment variable {INTERPOSE.name} is {text!r}", hint="use 0 or 1"
        )
    return text == "1"


def plugin_wanted() -> bool:
    """Return whether NCCL is to be given graphguard's profiler plugin.

    Raises:
        ConfigurationError: If the environment says neither 0 nor 1.
    """
    text = NCCL_PLUGIN.value or NCCL_PLUGIN.default
    if text not in ("0", "1"):
        raise ConfigurationError(
            f"the environment variable {NCCL_PLUGIN.name} is {text!r}", hint="use 0 or 1"
        )
    return text == "1"


def stall_seconds() -> float:
    """Return how long a launch or a step may take before it is looked at; 0 for no watchdog.

    Raises:
        ConfigurationError: If the environment does not say a number of seconds, or too large a one.
    """
    return _stall_limit(STALL_SECONDS, least=0.0)


def startup_seconds() -> float:
    """Return how long an engine's start may take in one piece before it is looked at.

    Raises:
        ConfigurationError: If the environment does not say a number of seconds, or too large a one.
    """
    return _stall_limit(STALL_STARTUP_SECONDS, least=0.1)


def slow_seconds() -> float:
    """Return how long what is slow may go on before it is a stall.

    Raises:
        ConfigurationError: If the environment does not say a number of seconds, or too large a one.
    """
    return _stall_limit(SLOW_SECONDS, least=0.1)


def on_stall() -> tuple[str, str]:
    """Return what is done about a stall, and the command if that is to run one.

    Raises:
        ConfigurationError: If the environment says none of the three.
    """
    text = ON_STALL.value or ON_STALL.default
    action, colon, command = text.partition(":")
    if text in ("report", "abort") or (action == "signal" and colon and command.strip()):
        return action, command.strip()
    raise ConfigurationError(
        f"the environment variable {ON_STALL.name} is {text!r}",
        hint="use report, abort, or signal: and a command",
    )


def stall_log() -> str:
    """Return the log file of the engine, or nothing."""
    return STALL_LOG.value or ""


def core_dump_wanted() -> bool:
    """Return whether GPUs are to be dumped at a stall.

    Raises:
        ConfigurationError: If the environment says neither 0 nor 1.
    """
    return _switched_on(STALL_COREDUMP)


def breadcrumbs_wanted() -> bool:
    """Return whether captured graphs get marks.

    Raises:
        ConfigurationError: If the environment says neither 0 nor 1.
    """
    return _switched_on(BREADCRUMBS)


def _stall_limit(variable: Variable, least: float) -> float:
    text = variable.value or variable.default
    try:
        seconds = float(text)
    except ValueError:
        seconds = -1.0
    if least <= seconds <= MAX_STALL_SECONDS:
        return seconds
    raise ConfigurationError(
        f"the environment variable {variable.name} is {text!r}",
        hint=f"give a number of seconds from {least:g} to {MAX_STALL_SECONDS:g}",
    )
