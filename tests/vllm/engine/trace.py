"""What each worker did, one JSON line per event, readable at any time and after its death."""

from __future__ import annotations

import os
from collections import Counter, defaultdict
from pathlib import Path

import msgspec


class Event(msgspec.Struct, frozen=True, omit_defaults=True):
    """One thing that a worker did.

    Attributes:
        kind: ``step``, ``capture``, ``replay``, ``eager``, ``drafts`` or ``fault``.
        step: The worker's step, from 1; 0 during start-up.
        role: ``target`` or ``drafter``.
        mode: The mode of the forward context, by name.
        num_tokens: Tokens of the descriptor, or of the batch for a step.
        num_reqs: Requests of the descriptor, or of the batch.
        uniform: Whether the descriptor is uniform.
        operators: How often each operator was seen by a capture.
        drafts: The draft tokens that were proposed for each request, by vLLM's name for it.
        detail: What happened, for a fault; for a step, ``placeholders`` if it was scheduled before
            its drafts were known.
        time: When, for a fault: seconds since the epoch.
    """

    kind: str
    step: int = 0
    role: str = "target"
    mode: str = "NONE"
    num_tokens: int = 0
    num_reqs: int | None = None
    uniform: bool = False
    operators: dict[str, int] | None = None
    drafts: dict[str, list[int]] | None = None
    detail: str = ""
    time: float = 0.0


Shape = tuple[str, str, int, int | None]
"""Role, mode, tokens and requests of a graph."""


class Trace:
    """The events of one worker."""

    def __init__(self, events: list[Event]) -> None:
        self.events = events

    def of(self, kind: str, role: str | None = None) -> list[Event]:
        """Return the events of one kind, and of one role if one is named."""
        return [e for e in self.events if e.kind == kind and role in (None, e.role)]

    def counts(self, kind: str) -> Counter[Shape]:
        """Count captures, replays or eager runs by what was captured, replayed or run."""
        return Counter((e.role, e.mode, e.num_tokens, e.num_reqs) for e in self.of(kind))

    def drafts(self) -> dict[int, list[int]]:
        """Return what was proposed for each request, in order, by the number that LLM gave it.

        Requests to a server have no number.
        """
        proposed: dict[int, list[int]] = defaultdict(list)
        for event in self.of("drafts"):
            for name, tokens in (event.drafts or {}).items():
                # vLLM appends something random to the name that LLM gave it.
                proposed[int(name.partition("-")[0])].extend(tokens)
        return dict(proposed)

    def __len__(self) -> int:
        return len(self.events)


class Writer:
    """Appends events to a file with one system call each, so that a killed worker loses none."""

    def __init__(self, directory: Path, rank: int) -> None:
        self._file = os.open(
            path_of(directory, rank), os.O_WRONLY | os.O_CREAT | os.O_APPEND | os.O_CLOEXEC, 0o600
        )
        self._encoder = msgspec.json.Encoder()

    def write(self, event: Event) -> None:
        """Append one event."""
        os.write(self._file, self._encoder.encode(event) + b"\n")


def path_of(directory: Path, rank: int) -> Path:
    """Return the file that the worker of a rank writes."""
    return directory / f"trace-{rank}.jsonl"


def read(directory: Path, rank: int, since: int = 0) -> Trace:
    """Read what the worker of a rank has done so far, from a place in its file on."""
    path = path_of(directory, rank)
    if not path.exists():
        return Trace([])
    with path.open("rb") as file:
        file.seek(since)
        lines = file.read().splitlines()
    return Trace([msgspec.json.decode(line, type=Event) for line in lines])


def size(directory: Path, rank: int) -> int:
    """Return how long the file of a rank is: it grows with each step, and is quickly asked for."""
    path = path_of(directory, rank)
    return path.stat().st_size if path.exists() else 0
