"""Wrapping methods of classes that belong to others, and taking the wrappers away again."""

from __future__ import annotations

import functools
from collections.abc import Callable
from typing import Any

Method = Callable[..., Any]


class Wrapping:
    """The wrappers of one adapter."""

    def __init__(self) -> None:
        self._originals: list[tuple[type, str, Method | None]] = []

    def wrap(self, owner: type, name: str, make: Callable[[Method], Method]) -> None:
        """Put ``make(method)`` in the place of a method; an inherited one is wrapped here only."""
        self._originals.append((owner, name, vars(owner).get(name)))
        original: Method = getattr(owner, name)
        setattr(owner, name, functools.wraps(original)(make(original)))

    def undo(self) -> None:
        """Take all wrappers away. A bound method that is kept somewhere still has its own."""
        while self._originals:
            owner, name, original = self._originals.pop()
            if original is None:
                delattr(owner, name)
            else:
                setattr(owner, name, original)
