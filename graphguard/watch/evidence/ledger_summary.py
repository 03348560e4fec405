"""What a ledger says, read from a copy of it: how far each rank came, and with what.

The layout is that of ``csrc/core/ledger_layout.h``. A copy is not of one moment, and its writers
may be gone; so nothing of it is believed that does not fit.
"""

from __future__ import annotations

import os
import re
import stat
import struct
from collections.abc import Sequence

import msgspec

MAX_BYTES = 64 * 2**20
MAX_RANKS = 512
SLOTS = 1024
NOTICES = 256
KEPT_STEPS = 4
"""Launches of a rank, up to its last, that are told."""

_MAGIC = 0x3152474C44454747
_VERSION = 1
_HEADER = struct.Struct("<QIIIIQQ24x")
_LINE = 64
_TROUBLE = _HEADER.size
_NOTICE_COUNT = _TROUBLE + _LINE
_CELLS = _NOTICE_COUNT + _LINE + NOTICES * _LINE
_RANKS = _CELLS + SLOTS * _LINE
_RANK_BYTES = 2 * _LINE
_SLOT = struct.Struct("<8Q")
_LEFT = 1 << 63
_MASK = (1 << 64) - 1

_PHASES = ("decode", "prefill", "mixed")
_KINDS = ("replay", "eager", "capture", "abort")
_OUTCOMES = ("pending", "launched", "adopted", "refused", "timed-out")
_TROUBLES = ("none", "differs", "refused", "timed-out", "damaged")

_INHERITED = re.compile(
    r"(?P<fd>\d{1,7}):(?P<bytes>\d{1,12}):(?P<group>.*):(?P<ranks>(?:\d{1,10}=\d{1,10})"
    r"(?:,\d{1,10}=\d{1,10})*)?",
    re.DOTALL,
)


class Ledger(msgspec.Struct, frozen=True):
    """A ledger whose descriptor was inherited.

    Attributes:
        descriptor: Of its memory.
        bytes: How large it is.
        group: The name of its group.
        pids: The process of each global rank of it, by local rank.
        ranks: The global ranks, by local rank.
    """

    descriptor: int
    bytes: int
    group: str
    ranks: tuple[int, ...] = ()
    pids: tuple[int, ...] = ()


class LedgerUnreadable(Exception):
    """Why a ledger cannot be read."""


class LaunchSeen(msgspec.Struct, frozen=True):
    """A launch that a rank has published.

    Attributes:
        whole: Whether its checksum fits: it was not being written when it was read.
    """

    step: int
    kind: str
    digest: str
    key: str
    num_reqs: int
    query_len: int
    num_tokens: int
    phase: str
    reason: int
    outcome: str
    whole: bool


class RankSeen(msgspec.Struct, frozen=True):
    """How far a rank came: the highest step it has published, and its last launches."""

    local_rank: int
    rank: int | None
    pid: int
    left: bool
    passed: int
    launches: tuple[LaunchSeen, ...]


class LedgerSummary(msgspec.Struct, frozen=True):
    """What a ledger says.

    Attributes:
        group: Its group.
        num_ranks: How many ranks it is for.
        trouble: What the first rank told that saw trouble, or None.
        notices: How many were announced.
        ranks: In the order of their local ranks.
        behind: The local ranks that have published less than the first one.
    """

    group: str
    num_ranks: int
    trouble: dict[str, int | str] | None
    notices: int
    ranks: tuple[RankSeen, ...]
    behind: tuple[int, ...]


def parse_inherited(text: str) -> Ledger:
    """Read the argument that names an inherited ledger: ``FD:BYTES:GROUP:rank=pid,rank=pid``.

    Raises:
        LedgerUnreadable: If it is something else.
    """
    found = _INHERITED.fullmatch(text)
    if found is None:
        raise LedgerUnreadable(f"{text[:200]!r} names no ledger")
    pairs = [pair.split("=") for pair in (found["ranks"] or "").split(",") if pair]
    return Ledger(
        descriptor=int(found["fd"]),
        bytes=int(found["bytes"]),
        group=found["group"],
        ranks=tuple(int(rank) for rank, _ in pairs),
        pids=tuple(int(pid) for _, pid in pairs),
    )


def copy(ledger: Ledger) -> bytes:
    """Return the content of a ledger as it is now.

    Raises:
        LedgerUnreadable: If the descriptor is not that of a ledger of this user.
    """
    try:
        status = os.fstat(ledger.descriptor)
        if not stat.S_ISREG(status.st_mode) or status.st_uid != os.geteuid():
            raise LedgerUnreadable(f"descriptor {ledger.descriptor} is no ledger of this user")
        if status.st_size != ledger.bytes or status.st_size > MAX_BYTES:
            raise LedgerUnreadable(
                f"the ledger of {ledger.group!r} has {status.st_size:,} bytes, and not "
                f"{ledger.bytes:,}"
            )
        content = bytearray()
        while len(content) < ledger.bytes:
            block = os.pread(ledger.descriptor, ledger.bytes - len(content), len(content))
            if not block:
                raise LedgerUnreadable(f"the ledger of {ledger.group!r} is shorter than it was")
            content += block
    except OSError as error:
        raise LedgerUnreadable(
            f"the ledger of {ledger.group!r} cannot be read: {error.strerror}"
        ) from error
    return bytes(content)


def summarise(content: bytes, group: str = "", ranks: Sequence[int] = ()) -> LedgerSummary:
    """Return what a copy of a ledger says.

    Args:
        content: The copy.
        group: The name of its group, which is not in it.
        ranks: The global ranks, by local rank.

    Raises:
        LedgerUnreadable: If it is no ledger.
    """
    num_ranks = _num_ranks(content)
    seen = tuple(
        _rank(content, num_ranks, local, ranks[local] if local < len(ranks) else None)
        for local in range(num_ranks)
    )
    first = max(rank.passed for rank in seen)
    return LedgerSummary(
        group=group,
        num_ranks=num_ranks,
        trouble=_trouble(_word(content, _TROUBLE)),
        notices=min(_word(content, _NOTICE_COUNT), NOTICES),
        ranks=seen,
        behind=tuple(rank.local_rank for rank in seen if rank.passed < first),
    )


def ledger_bytes(num_ranks: int) -> int:
    """Return how large a ledger of so many ranks is."""
    return _RANKS + num_ranks * (_RANK_BYTES + SLOTS * _SLOT.size)


def _num_ranks(content: bytes) -> int:
    if len(content) < _RANKS:
        raise LedgerUnreadable(f"{len(content):,} bytes are too few for a ledger")
    magic, version, num_ranks, slots, notices, size, _ = _HEADER.unpack_from(content)
    if magic != _MAGIC:
        raise LedgerUnreadable("it is no ledger")
    if (version, slots, notices) != (_VERSION, SLOTS, NOTICES):
        raise LedgerUnreadable("it is a ledger of another version of graphguard")
    if not 1 <= num_ranks <= MAX_RANKS or not size == len(content) == ledger_bytes(num_ranks):
        raise LedgerUnreadable("it is a ledger of another size than it says")
    return int(num_ranks)


def _rank(content: bytes, num_ranks: int, local: int, rank: int | None) -> RankSeen:
    begin = _RANKS + local * _RANK_BYTES
    passed, pid = _word(content, begin), _word(content, begin + _LINE)
    slots = _RANKS + num_ranks * _RANK_BYTES + local * SLOTS * _SLOT.size
    launches = []
    for step in range(max(1, passed - KEPT_STEPS + 1), passed + 1):
        launch = _launch(content, slots + step % SLOTS * _SLOT.size, step)
        if launch is not None:
            launches.append(launch)
    return RankSeen(local, rank, pid & ~_LEFT, bool(pid & _LEFT), passed, tuple(launches))


def _launch(content: bytes, offset: int, step: int) -> LaunchSeen | None:
    stamp, high, low, key, requests, rest, outcome, checksum = _SLOT.unpack_from(content, offset)
    if stamp != step:
        return None
    phase, kind, reason = rest >> 16 & 0xFF, rest >> 8 & 0xFF, rest & 0xFF
    fits = checksum == _checksum(step, (high, low, key, requests, rest))
    return LaunchSeen(
        step=step,
        kind=_name(_KINDS, kind),
        digest=f"{high:016x}{low:016x}",
        key=f"{key:016x}",
        num_reqs=requests >> 32,
        query_len=requests & 0xFFFFFFFF,
        num_tokens=rest >> 32,
        phase=_name(_PHASES, phase),
        reason=reason,
        outcome=_name(_OUTCOMES, outcome & 0xFF),
        whole=fits,
    )


def _trouble(word: int) -> dict[str, int | str] | None:
    kind = word >> 12 & 0xF
    if kind == 0:
        return None
    return {"kind": _name(_TROUBLES, kind), "local_rank": word & 0xFFF, "step": word >> 16}


def _name(names: Sequence[str], number: int) -> str:
    return names[number] if number < len(names) else f"number {number}"


def _word(content: bytes, offset: int) -> int:
    return int.from_bytes(content[offset : offset + 8], "little")


def _checksum(step: int, words: tuple[int, int, int, int, int]) -> int:
    high, low, key, requests, rest = words
    total = _fold(_fold(step, high) ^ low, key)
    return _fold(total ^ requests, rest)


def _fold(a: int, b: int) -> int:
    """``fold`` of ``csrc/core/fold.h``."""
    product = (a ^ 0xA0761D6478BD642F) * (b ^ 0xE7037ED1A0B428DB)
    return (product & _MASK) ^ (product >> 64)
