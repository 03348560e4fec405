"""What a stage prints: figures, claims, and what it did not do. Everything else is its log.

A line is the mark, a blank and one JSON object. It may stand behind other output in its line, as
engines write where they like. What cannot be read is counted and kept as a sample, never trusted.
"""

from __future__ import annotations

import os
import sys
from typing import NamedTuple

import msgspec

MARK = b"graphguard-gpu:"
MAX_LINE_BYTES = 64 * 1024
MAX_LINES = 5_000
MAX_TEXT = 2_000


class Spread(msgspec.Struct, frozen=True, omit_defaults=True, forbid_unknown_fields=True):
    """How measured values lie.

    Attributes:
        n: How many.
        median: The middle one.
        p10: A tenth lies below it.
        p90: A tenth lies above it.
        p99: A hundredth lies above it; None below 100 values.
        least: The smallest.
    """

    n: int
    median: float
    p10: float
    p90: float
    p99: float | None = None
    least: float | None = None


class Figure(
    msgspec.Struct, frozen=True, omit_defaults=True, forbid_unknown_fields=True, tag="figure"
):
    """Something measured.

    Attributes:
        what: What was measured, with its circumstances.
        unit: Of the spread.
        spread: Where the values lie.
        ratio: Against the baseline of the same rounds, round by round.
        against: The ``what`` of that baseline.
    """

    what: str
    unit: str
    spread: Spread
    ratio: Spread | None = None
    against: str = ""


class Claim(
    msgspec.Struct, frozen=True, omit_defaults=True, forbid_unknown_fields=True, tag="claim"
):
    """Something that is claimed, and whether it was seen to hold.

    Attributes:
        what: The claim.
        held: Whether it held; None where the result is worth having either way.
        seen: What was seen.
    """

    what: str
    held: bool | None
    seen: str = ""


class NotRun(
    msgspec.Struct, frozen=True, omit_defaults=True, forbid_unknown_fields=True, tag="not_run"
):
    """Something that was not done, and why."""

    what: str
    why: str


Line = Figure | Claim | NotRun


class Told(NamedTuple):
    """What a stage has told."""

    figures: tuple[Figure, ...] = ()
    claims: tuple[Claim, ...] = ()
    not_run: tuple[NotRun, ...] = ()
    garbled: int = 0
    sample: str = ""

    @property
    def nothing(self) -> bool:
        """Whether the stage has told nothing at all."""
        return not (self.figures or self.claims or self.not_run)


def tell(line: Line) -> None:
    """Print a line of this stage, in one piece and on a line of its own."""
    sys.stdout.flush()
    os.write(sys.stdout.fileno(), b"\n" + MARK + b" " + msgspec.json.encode(line) + b"\n")


def read(output: bytes) -> Told:
    """Return what a stage has told, from all that it printed, which may be anything."""
    found: list[Line] = []
    garbled, sample = 0, ""
    for raw in output.split(b"\n"):
        _, mark, rest = raw.partition(MARK)
        if not mark:
            continue
        line = _decoded(rest.strip()) if len(found) < MAX_LINES else None
        if line is None:
            garbled += 1
            sample = sample or rest[:200].decode(errors="replace")
        else:
            found.append(line)
    return Told(
        tuple(line for line in found if isinstance(line, Figure)),
        tuple(line for line in found if isinstance(line, Claim)),
        tuple(line for line in found if isinstance(line, NotRun)),
        garbled,
        sample,
    )


def _decoded(content: bytes) -> Line | None:
    if len(content) > MAX_LINE_BYTES:
        return None
    try:
        line: Line = msgspec.json.decode(content, type=Line)
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError):
        return None
    return line if _plausible(line) else None


def _plausible(line: Line) -> bool:
    texts = [getattr(line, name, "") for name in ("what", "unit", "against", "seen", "why")]
    if not line.what or any(len(text) > MAX_TEXT for text in texts):
        return False
    if isinstance(line, Figure):
        return _ordered(line.spread) and (line.ratio is None or _ordered(line.ratio))
    return True


def _ordered(spread: Spread) -> bool:
    # That they are finite is seen to by JSON, which has no other numbers.
    if spread.n < 1:
        return False
    least = spread.p10 if spread.least is None else spread.least
    most = spread.p90 if spread.p99 is None else spread.p99
    return least <= spread.p10 <= spread.median <= spread.p90 <= most
