"""Waiting for other ranks, with a bound and a word in the log."""

from __future__ import annotations

import time
from collections.abc import Callable

from graphguard.log import logger

FIRST_PAUSE_SECONDS = 0.001
LONGEST_PAUSE_SECONDS = 0.05
FIRST_LINE_SECONDS = 5.0
NEXT_LINES_SECONDS = 30.0


class Waiting:
    """One wait, made of pauses that grow.

    Args:
        seconds: The bound.
        who: This rank and its group, for the log.

    Attributes:
        seconds: The bound.
        deadline: When it is reached, as ``time.monotonic`` counts.
    """

    def __init__(self, seconds: float, who: str) -> None:
        self.seconds = seconds
        self._began = time.monotonic()
        self.deadline = self._began + seconds
        self._who = who
        self._pause = FIRST_PAUSE_SECONDS
        self._next_line = self._began + FIRST_LINE_SECONDS

    @property
    def over(self) -> bool:
        """Whether the bound is reached."""
        return time.monotonic() >= self.deadline

    def pause(self, told: Callable[[], str]) -> None:
        """Sleep for a moment.

        Args:
            told: Called when the wait has become long: says what is waited for.
        """
        now = time.monotonic()
        if now >= self._next_line:
            self._next_line = now + NEXT_LINES_SECONDS
            logger().info(
                "%s has waited for %.0f s, of at most %g s: %s",
                self._who,
                now - self._began,
                self.seconds,
                told(),
            )
        time.sleep(max(0.0, min(self._pause, self.deadline - now)))
        self._pause = min(2 * self._pause, LONGEST_PAUSE_SECONDS)
