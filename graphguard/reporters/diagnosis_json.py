"""Diagnoses as JSON."""

from __future__ import annotations

from collections.abc import Sequence

import msgspec

from graphguard.audit.logs import Diagnosis, as_json
from graphguard.audit.logs.stall_bundle import StallBundle
from graphguard.reporters.json import document

SCHEMA = "graphguard.diagnose"
VERSION = 1


def render(diagnoses: Sequence[Diagnosis], stall: StallBundle | None = None) -> str:
    """Return what each log says, and what was collected of a stall."""
    logs = [as_json(diagnosis) for diagnosis in diagnoses]
    content: dict[str, object] = {"schema": SCHEMA, "version": VERSION, "logs": logs}
    if stall is not None:
        content["stall"] = msgspec.to_builtins(stall)
    return document(content)
