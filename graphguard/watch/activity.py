"""What this process is doing besides launches, told to its watchdog and to whoever looks at it."""

from __future__ import annotations

import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager

from graphguard.blackbox.pulse import ActivityKind
from graphguard.blackbox.writer import process_box
from graphguard.errors import ConfigurationError

MAX_SLOW_SECONDS = 86_400.0


@contextmanager
def during(kind: ActivityKind, name: str) -> Iterator[None]:
    """Say that something is under way in this thread.

    One activity of a kind is shown at a time, of ``OTHER`` up to four.

    Args:
        kind: What; launches tell of themselves.
        name: What the program calls it.
    """
    box = process_box()
    if box is None:
        yield
        return
    number = box.name(name)
    box.ring.begin_activity(kind, number, 0)
    try:
        yield
    finally:
        box.ring.end_activity(kind, number)


@contextmanager
def slow(why: str, seconds: float) -> Iterator[None]:
    """Say that what follows is slow, and not stuck: the watchdog gives it that time.

    Use it around what one rank may do while the others wait for it, such as compiling a kernel
    when it is first needed. ::

        with graphguard.slow("autotuning", 120):
            autotune(kernel)

    Args:
        why: What is done, for the log and for ``graphguard watch``.
        seconds: How long it may take. Beyond that it is looked at like everything else.

    Raises:
        ConfigurationError: If that is not above 0 and up to a day.
    """
    if not 0 < seconds <= MAX_SLOW_SECONDS:
        raise ConfigurationError(
            f"slow() is told of {seconds} seconds",
            hint=f"give a number above 0 and up to {MAX_SLOW_SECONDS:g}",
        )
    extension = (time.monotonic() + seconds, why)
    _extensions.add(extension)
    try:
        yield
    finally:
        _extensions.remove(extension)


class _Extensions:
    """Those that hold now. What the watchdog sees is the longest."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._held: list[tuple[float, str]] = []

    def add(self, extension: tuple[float, str]) -> None:
        with self._lock:
            self._held.append(extension)
            self._tell()

    def remove(self, extension: tuple[float, str]) -> None:
        with self._lock:
            self._held.remove(extension)
            self._tell()

    def _tell(self) -> None:
        box = process_box()
        if box is None:
            return
        until, why = max(self._held, default=(0.0, ""))
        box.ring.extend(max(0.0, until - time.monotonic()), box.name(why))


_extensions = _Extensions()
