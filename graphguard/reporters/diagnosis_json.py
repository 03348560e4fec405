"""Diagnoses as JSON."""

from __future__ import annotations

from collections.abc import Sequence

from graphguard.audit.logs import Diagnosis, as_json
from graphguard.reporters.json import document

SCHEMA = "graphguard.diagnose"
VERSION = 1


def render(diagnoses: Sequence[Diagnosis]) -> str:
    """Return what each log says."""
    logs = [as_json(diagnosis) for diagnosis in diagnoses]
    return document({"schema": SCHEMA, "version": VERSION, "logs": logs})
