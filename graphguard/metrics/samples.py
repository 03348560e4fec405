"""What a process publishes about itself, and what a reader accepts of it."""

from __future__ import annotations

import zlib
from struct import Struct as Layout
from typing import Annotated, Literal

import msgspec
from msgspec import Meta

MAX_LABEL = 64
MAX_ROLES = 32
MAX_EVENTS = 1_000
MAX_CONTENT_BYTES = 2**20

STEP_SHIFT, STEP_BUCKETS = 14, 20
"""Launches are counted in buckets of powers of two, from 2¹⁴ ns (16 µs) to 2³² ns (4.3 s)."""
CHECK_SHIFT, CHECK_BUCKETS = 6, 12
"""Checks, from 2⁶ ns (64 ns) to 2¹⁶ ns (66 µs)."""

Label = Annotated[str, Meta(pattern=r"\A[^\x00-\x1f\x7f]*\Z", max_length=MAX_LABEL)]
Count = Annotated[int, Meta(ge=0, le=2**63 - 1)]
EventName = Literal[
    "divergences", "votes", "recaptures", "quarantined", "degraded", "padding_violations"
]

_HEADER = Layout("<8sII")
_MAGIC = b"ggmetr1\n"
MAX_FILE_BYTES = _HEADER.size + MAX_CONTENT_BYTES


class Durations(msgspec.Struct, frozen=True, array_like=True):
    """How many things took how long: a count for each bucket, and nanoseconds in all."""

    counts: Annotated[tuple[Count, ...], Meta(max_length=64)]
    nanoseconds: Count = 0


class RoleSamples(msgspec.Struct, frozen=True):
    """The counts of one role.

    Attributes:
        role: Which one.
        checks: Action, reason and how often.
        in_flight: Launches that have begun and not returned.
        began: When its last step began, in nanoseconds of the monotonic clock; 0 if none did.
        steps: How long launches took to return.
    """

    role: Label
    checks: Annotated[tuple[tuple[Label, Label, Count], ...], Meta(max_length=MAX_EVENTS)] = ()
    in_flight: Count = 0
    began: Count = 0
    steps: Durations = Durations(())


class ProcessSamples(msgspec.Struct, frozen=True):
    """The counts of one process.

    Attributes:
        pid: The process.
        rank: Its rank, as the label of its samples.
        published: When this was published, in nanoseconds of the monotonic clock. All processes
            of a machine share that clock.
        roles: The counts of each role.
        events: What is rarer than a step: its name, its labels, how often.
        checks: How long sampled checks took.
    """

    pid: Count
    rank: Label
    published: Count
    roles: Annotated[tuple[RoleSamples, ...], Meta(max_length=MAX_ROLES + 1)] = ()
    events: Annotated[
        tuple[
            tuple[EventName, Annotated[tuple[Label, ...], Meta(max_length=2)], Count],
            ...,
        ],
        Meta(max_length=2 * MAX_EVENTS),
    ] = ()
    checks: Durations = Durations(())


_encoder = msgspec.json.Encoder()
_decoder = msgspec.json.Decoder(ProcessSamples)


def label(value: object) -> str:
    """Return the text of a label: at most 64 characters, all of them printable."""
    text = str(value)[:MAX_LABEL]
    return text if text.isprintable() else "".join(c if c.isprintable() else "?" for c in text)


def pack(samples: ProcessSamples) -> bytes:
    """Return the content of a file: a header with length and checksum, and the samples."""
    content = _encoder.encode(samples)
    return _HEADER.pack(_MAGIC, len(content), zlib.crc32(content)) + content


def unpack(content: bytes) -> ProcessSamples | None:
    """Return the samples in a file, or None if it holds no whole and valid ones."""
    if len(content) < _HEADER.size:
        return None
    magic, length, checksum = _HEADER.unpack_from(content)
    encoded = content[_HEADER.size : _HEADER.size + length]
    if magic != _MAGIC or len(encoded) != length or zlib.crc32(encoded) != checksum:
        return None
    try:
        return _decoder.decode(encoded)
    except (msgspec.MsgspecError, RecursionError, UnicodeDecodeError):
        return None
