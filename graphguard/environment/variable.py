"""What an environment variable is to graphguard, and the modes of a guard."""

from __future__ import annotations

import os
from enum import Enum

import msgspec


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
