"""How a run ended and what was recorded, as text for people and as JSON for programs."""

from __future__ import annotations

import signal
from collections.abc import Iterator
from typing import Any

import msgspec

from graphguard.printable import printable
from graphguard.reporters import blackbox, blackbox_json, json, text
from graphguard.running.outcome import Outcome
from graphguard.running.program import SIGNALLED

SCHEMA = "graphguard.run"
VERSION = 1
LAST_STEPS = 3


def render(outcome: Outcome) -> str:
    """Return the outcome as text: the program, what was reached, the audit, the black boxes."""
    told = [_ended(outcome), *_reached(outcome), f"recorded in {outcome.directory}"]
    parts = ["".join(f"graphguard: {printable(line)}\n" for line in told)]
    if outcome.manifests or outcome.findings:
        parts.append(text.render(outcome.findings, outcome.coverage))
    else:
        parts.append("no manifest was written: nothing that was captured was recorded\n")
    if outcome.timeline is not None and outcome.boxes is not None:
        parts.append(blackbox.render(outcome.timeline, outcome.boxes, LAST_STEPS))
    return "\n".join(parts)


def render_json(outcome: Outcome) -> str:
    """Return the outcome as JSON. ``audit`` and ``blackbox`` are as those commands print them."""
    timeline, boxes = outcome.timeline, outcome.boxes
    told: dict[str, Any] = {
        "schema": SCHEMA,
        "version": VERSION,
        "exit_code": outcome.exit_code,
        "found": outcome.found,
        "directory": str(outcome.directory),
        "processes": outcome.reached,
        "audit": _decoded(json.render(outcome.findings, outcome.coverage)),
        "blackbox": None
        if timeline is None or boxes is None
        else _decoded(blackbox_json.summary(timeline, boxes)),
    }
    return json.document(told)


def _decoded(document: str) -> Any:  # noqa: ANN401 - what another reporter printed
    return msgspec.json.decode(document)


def _ended(outcome: Outcome) -> str:
    code = outcome.exit_code
    if code <= SIGNALLED:
        return f"the program ended with {code}"
    try:
        return f"the program ended with {code} ({signal.Signals(code - SIGNALLED).name})"
    except ValueError:
        return f"the program ended with {code}"


def _reached(outcome: Outcome) -> Iterator[str]:
    reached = outcome.reached
    yield f"{_processes(reached.loaded)} loaded graphguard"
    for refusal in reached.refused:
        yield f"{_processes(refusal.count)} of {refusal.python} could not load it: {refusal.reason}"
    if not reached.loaded and not reached.refused:
        yield (
            "no Python process was reached: none was started, or with options that leave "
            "PYTHONPATH out (-I, -E, -S)"
        )


def _processes(number: int) -> str:
    return f"{number:,} Python process{'' if number == 1 else 'es'}"
