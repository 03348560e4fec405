"""The lines of an examiner: on standard error, where the log of the stalled program is."""

from __future__ import annotations

import os
import sys
from contextlib import suppress
from datetime import datetime

from graphguard.audit.findings import ranks_text
from graphguard.printable import printable
from graphguard.watch.verdicts.stall import StallClass, StallVerdict

MAX_LINE = 2_000
_MAX_SENTENCE = 900
_MAX_NOT_KNOWN = 300


def tell(text: str) -> None:
    """Write one line, whole or not at all. Nobody may be there to read it."""
    line = printable(text)
    if len(line) > MAX_LINE:
        line = f"{line[: MAX_LINE - 1]}…"
    with suppress(OSError, ValueError):
        os.write(sys.__stderr__.fileno() if sys.__stderr__ else 2, f"{line}\n".encode())


def stall_line(told: StallVerdict, bundle: str) -> str:
    """Return the line about a stall."""
    parts = [
        f"graphguard: STALL [{told.stall_class}] {_who(told)}{_step(told)} since {_clock(told)} "
        f"({told.seconds:.1f} s): {_cut(told.sentence, _MAX_SENTENCE)}"
    ]
    if told.collective is not None:
        parts.append(f"it waits in {told.collective}")
    if told.not_known:
        parts.append(_cut(f"not known: {', '.join(told.not_known)}", _MAX_NOT_KNOWN))
    parts.append(f"evidence: {bundle or 'being collected, beside the black boxes'}")
    return "; ".join(parts)


def slow_line(told: StallVerdict, limit: float) -> str:
    """Return the line about ranks that are slow."""
    return (
        f"graphguard: INFO slow, no stall: {_cut(told.sentence, _MAX_SENTENCE)} (for "
        f"{told.seconds:.1f} s{_step(told)}; a stall after {limit:g} s)"
    )


def was_slow_line(seconds: float) -> str:
    """Return the line about that slow ranks have got on."""
    return f"graphguard: INFO was slow: {seconds:.1f} s"


def over_line(stall_class: str, how: str, bundle: str) -> str:
    """Return the line about the end of a stall."""
    return f"graphguard: STALL [{stall_class}] over: {how}{f'; evidence: {bundle}' * bool(bundle)}"


def _who(told: StallVerdict) -> str:
    if told.ranks:
        return ranks_text(sorted(told.ranks))
    if told.waiting:
        return f"{ranks_text(sorted(told.waiting))} waiting"
    return "no rank"


def _step(told: StallVerdict) -> str:
    if not told.step:
        return ""
    return f" in step {told.step}" + (f" of {told.group}" if told.group else "")


def _clock(told: StallVerdict) -> str:
    """Return when it began, in the time zone that the log of the program is in."""
    with suppress(ValueError, OverflowError, OSError):
        return datetime.fromisoformat(told.since).astimezone().strftime("%H:%M:%S")
    return told.since


def _cut(text: str, length: int) -> str:
    return text if len(text) <= length else f"{text[: length - 1]}…"


def is_stall(told: StallVerdict) -> bool:
    """Return whether a verdict is one of a stall."""
    return told.stall_class is not StallClass.SLOW
