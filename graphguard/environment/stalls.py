"""What the environment says of stalls."""

from __future__ import annotations

from graphguard.environment.switches import switched_on
from graphguard.environment.variable import Variable
from graphguard.environment.variables import (
    BREADCRUMBS,
    MAX_STALL_SECONDS,
    ON_STALL,
    SLOW_SECONDS,
    STALL_COREDUMP,
    STALL_LOG,
    STALL_SECONDS,
    STALL_STARTUP_SECONDS,
)
from graphguard.errors import ConfigurationError


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


def check_stall_settings() -> None:
    """Read everything that is said of stalls: when there is one, it is too late to say it is wrong.

    Raises:
        ConfigurationError: If something of it cannot be meant.
    """
    stall_seconds()
    startup_seconds()
    slow_seconds()
    on_stall()
    core_dump_wanted()
    breadcrumbs_wanted()


def stall_log() -> str:
    """Return the log file of the engine, or nothing."""
    return STALL_LOG.value or ""


def core_dump_wanted() -> bool:
    """Return whether GPUs are to be dumped at a stall.

    Raises:
        ConfigurationError: If the environment says neither 0 nor 1.
    """
    return switched_on(STALL_COREDUMP)


def breadcrumbs_wanted() -> bool:
    """Return whether captured graphs get marks.

    Raises:
        ConfigurationError: If the environment says neither 0 nor 1.
    """
    return switched_on(BREADCRUMBS)


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
