"""What the environment says of guards, recorders and engines."""

from __future__ import annotations

from typing import TYPE_CHECKING

from graphguard.environment.switches import switched_on
from graphguard.environment.variable import Mode
from graphguard.environment.variables import (
    AGREE_SECONDS,
    DECODE_STEPS,
    DIRECTORY,
    INSTALL,
    INTERPOSE,
    MAX_AGREE_SECONDS,
    MAX_RING_ENTRIES,
    METRICS,
    MODE,
    NCCL_PLUGIN,
    RING_ENTRIES,
    UNIFORM_GRAPHS,
    WHEN_STUCK,
)
from graphguard.errors import ConfigurationError

if TYPE_CHECKING:
    from pathlib import Path

_AGREE_SECONDS_ENFORCE = 300.0
_AGREE_SECONDS_OBSERVE = 30.0


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
    return switched_on(UNIFORM_GRAPHS)


def install_wanted() -> bool:
    """Return whether every CUDA graph of torch is to be recorded.

    Raises:
        ConfigurationError: If the environment says neither 0 nor 1.
    """
    return switched_on(INSTALL)


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
    return switched_on(INTERPOSE)


def plugin_wanted() -> bool:
    """Return whether NCCL is to be given graphguard's profiler plugin.

    Raises:
        ConfigurationError: If the environment says neither 0 nor 1.
    """
    return switched_on(NCCL_PLUGIN)
