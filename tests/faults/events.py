"""What a rank did and when, as lines that survive its end."""

from __future__ import annotations

import json
import os
import time
from pathlib import Path
from typing import Any, NamedTuple


class Event(NamedTuple):
    """One line of a rank, in the order in which it wrote them.

    Attributes:
        time: As ``time.monotonic`` counts, which is one clock for all processes of a machine.
        kind: ``fault``, ``about``, ``launch``, ``returned``, ``report``, ``raised`` or ``note``.
        fields: What belongs to it.
    """

    time: float
    kind: str
    fields: dict[str, Any]


class EventLog:
    """Writes the events of one rank. Each is one write, so that SIGKILL loses none."""

    def __init__(self, path: Path) -> None:
        flags = os.O_WRONLY | os.O_CREAT | os.O_APPEND | os.O_CLOEXEC
        self._descriptor = os.open(path, flags, 0o600)

    def write(self, kind: str, /, **fields: Any) -> None:
        line = json.dumps([time.monotonic(), kind, fields])
        os.write(self._descriptor, line.encode() + b"\n")


def read_events(path: Path) -> list[Event]:
    """Return the events of a rank, none if it has not come so far as to write one."""
    if not path.exists():
        return []
    return [Event(*json.loads(line)) for line in path.read_text().splitlines()]
