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
    "GRAPHGUARD_DIR", "where manifests are written; nothing is written without it", ""
)
VARIABLES = (MODE, DIRECTORY)


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
