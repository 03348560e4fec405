"""Diagnoses as text for people: what happened, what it supports and excludes, what to try."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

from graphguard.audit.logs import Diagnosis, Evidence, Reading
from graphguard.audit.logs.model import Strength
from graphguard.printable import printable
from graphguard.reporters import table

MAX_TEXT = 110
"""Characters of a quoted line that are shown."""

_STRENGTH = {Strength.DIRECT: "", Strength.CONSISTENT: " (consistent with it, not shown)"}


def render(diagnoses: Sequence[Diagnosis]) -> str:
    """Return what each log says, one after the other."""
    return "\n".join(map(_one, diagnoses))


def _one(diagnosis: Diagnosis) -> str:
    parts = ["".join(f"{printable(line)}\n" for line in _head(diagnosis))]
    if diagnosis.timeline:
        rows = [(str(m.line), m.time or "-", m.what, _short(m.text)) for m in diagnosis.timeline]
        parts.append(table.render("Timeline", ("line", "time", "what", "says"), rows))
    parts.append("".join(f"{printable(line)}\n" for line in _body(diagnosis)))
    return "\n".join(part for part in parts if part)


def _head(diagnosis: Diagnosis) -> Iterator[str]:
    engine = " ".join(filter(None, (diagnosis.engine or "no known engine", diagnosis.version)))
    yield f"{diagnosis.path}: {engine}, {diagnosis.lines:,} line{'s' * (diagnosis.lines != 1)}"
    if diagnosis.first_cause is not None:
        first = diagnosis.first_cause
        who = f" ({first.process})" if first.process else ""
        yield f"it began on line {first.line}{who}: {first.what}"
    elif not diagnosis.supported:
        yield "nothing found"
    if diagnosis.fatal is not None:
        yield f"it ended on line {diagnosis.fatal.line}: {diagnosis.fatal.what}"


def _body(diagnosis: Diagnosis) -> Iterator[str]:
    if diagnosis.step is not None:
        yield f"step, from the dump on {_lines(diagnosis.step.evidence)}"
        yield from (f"  {words}" for words in diagnosis.step.words)
    if diagnosis.configuration:
        yield "configuration"
        yield from _configuration(diagnosis)
    yield from _readings("supported by the evidence", diagnosis.supported)
    yield from _readings("excluded by the evidence", diagnosis.excluded)
    yield from _readings("not decided by this log", diagnosis.undecided)
    if diagnosis.known_threads:
        yield "public threads that share these circumstances (leads, not findings)"
        for thread in diagnosis.known_threads:
            fixed = f"; {thread.fixed_in}" if thread.fixed_in else ""
            yield f"  {thread.thread}: {thread.title} ({thread.status}{fixed})"
            yield f"    shares: {thread.why}"
    if diagnosis.try_next:
        yield "try next"
        for advice in diagnosis.try_next:
            yield f"  {advice.what}"
            yield f"    why: {advice.why} [{_lines(advice.evidence)}]"
    yield from (f"note: {note}" for note in diagnosis.notes)


def _configuration(diagnosis: Diagnosis) -> Iterator[str]:
    for name, setting in sorted(diagnosis.configuration.items()):
        value = _short(setting.value) or "none"
        yield f"  {name.replace('_', ' ')}: {value} [line {setting.line}]"


def _readings(title: str, readings: Sequence[Reading]) -> Iterator[str]:
    if not readings:
        return
    yield title
    for reading in readings:
        strength = _STRENGTH[reading.strength] if reading.strength is not None else ""
        yield f"  {reading.cause}{strength}: {reading.why} [{_lines(reading.evidence)}]"


def _lines(evidence: Sequence[Evidence]) -> str:
    numbers = [each.line for each in evidence if each.line]
    files = [each.text for each in evidence if not each.line]
    told = []
    if numbers:
        noun = "line" if len(numbers) == 1 else "lines"
        told.append(f"{noun} {', '.join(map(str, dict.fromkeys(numbers)))}")
    return "; ".join([*told, *files]) or "no line"


def _short(text: str) -> str:
    return text if len(text) <= MAX_TEXT else f"{text[: MAX_TEXT - 1]}…"
