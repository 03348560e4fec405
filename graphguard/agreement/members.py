"""Joining: the ranks of a group find each other, and those of one node share a ledger."""

from __future__ import annotations

import os
from collections.abc import Sequence

import msgspec

from graphguard import _core
from graphguard.agreement.rendezvous import Rendezvous
from graphguard.agreement.segment import DIRECTORY, Segment, SegmentName
from graphguard.audit.findings import ranks_text
from graphguard.environment import Mode
from graphguard.errors import GraphguardError, LedgerError
from graphguard.version import __version__

_MAX_TEXT = 2_000


class Member(msgspec.Struct, frozen=True):
    """What a rank says of itself when it joins.

    Attributes:
        host: Its host name.
        memory: What is equal for ranks that share /dev/shm, and for no others.
        pid: Its process.
        mode: The mode of its guard.
        version: Its version of graphguard.
    """

    host: str
    memory: str
    pid: int
    mode: str
    version: str


class LocalLedger(msgspec.Struct, frozen=True):
    """The ledger of this node.

    Attributes:
        native: The place of this rank in it.
        segment: The shared memory.
        ranks: Ranks in the group that share it, in order. Their positions are their places.
        place: The place of this rank.
    """

    native: _core.Ledger
    segment: Segment
    ranks: tuple[int, ...]
    place: int


def join(
    rendezvous: Rendezvous, rank: int, mode: Mode, seconds: float
) -> tuple[list[Member], LocalLedger]:
    """Meet the other ranks of the group and open the ledger of this node with them.

    Every rank comes to the same end: if one cannot join, none has a ledger.

    Args:
        rendezvous: Where the ranks of the group meet.
        rank: This rank in the group.
        mode: The mode of the guard.
        seconds: How long ranks wait for each other, in each of three rounds.

    Raises:
        RankMissing: If a rank does not come in time.
        LedgerError: If ranks run different versions of graphguard, or the ledger cannot be made or
            opened on some rank.
    """
    me = Member(os.uname().nodename, _memory(), os.getpid(), str(mode), __version__)
    posts = rendezvous.exchange("join", msgspec.json.encode(me), seconds)
    members = [msgspec.json.decode(post, type=Member) for post in posts]
    _require_one_version(members)
    local = tuple(r for r, member in enumerate(members) if member.memory == me.memory)
    segment, made = _offered(rank == local[0], len(local))
    offers = rendezvous.exchange("ledger", made, seconds)
    failure = ""
    ledger = None
    try:
        segment = segment or _accepted(offers[local[0]], len(local))
        ledger = _opened(segment, local, rank, mode)
    except (GraphguardError, msgspec.DecodeError, OSError, RuntimeError) as error:
        failure = str(error)[:_MAX_TEXT]
    try:
        answers = rendezvous.exchange("joined", failure.encode(), seconds)
    finally:
        if segment is not None and rank == local[0]:
            segment.remove_name()
    _require_all(answers)
    assert ledger is not None  # noqa: S101 - or this rank's own answer is a failure
    return members, ledger


def _require_one_version(members: Sequence[Member]) -> None:
    ranks: dict[str, list[int]] = {}
    for rank, member in enumerate(members):
        ranks.setdefault(member.version, []).append(rank)
    if len(ranks) > 1:
        told = "; ".join(f"{ranks_text(who)}: {version}" for version, who in ranks.items())
        raise LedgerError(
            f"the ranks of the group run different versions of graphguard: {told}",
            hint="install one version everywhere",
        )


def _memory() -> str:
    """Name the shared memory of this process: containers of one host may each have their own."""
    status = os.stat(DIRECTORY)
    with open("/proc/sys/kernel/random/boot_id", encoding="ascii") as boot:
        return f"{boot.read().strip()}:{status.st_dev}:{status.st_ino}"


def _offered(leads: bool, num_ranks: int) -> tuple[Segment | None, bytes]:
    if not leads:
        return None, b""
    try:
        segment = Segment.create(num_ranks)
    except GraphguardError as error:
        return None, b"!" + str(error)[:_MAX_TEXT].encode()
    return segment, msgspec.json.encode(segment.name)


def _accepted(offer: bytes, num_ranks: int) -> Segment:
    if offer.startswith(b"!"):
        raise LedgerError(offer[1:].decode(errors="replace"))
    return Segment.open(msgspec.json.decode(offer, type=SegmentName), num_ranks)


def _opened(segment: Segment, local: tuple[int, ...], rank: int, mode: Mode) -> LocalLedger:
    place = local.index(rank)
    segment.hold(place)
    native = _core.Ledger(
        segment.descriptor,
        segment.size,
        place,
        segment.name.token,
        os.getpid(),
        mode is Mode.ENFORCE,
    )
    return LocalLedger(native, segment, local, place)


def _require_all(answers: Sequence[bytes]) -> None:
    failed = {rank: answer.decode(errors="replace") for rank, answer in enumerate(answers)}
    failed = {rank: text for rank, text in failed.items() if text}
    if failed:
        rank, text = next(iter(failed.items()))
        message, _, hint = text.partition("\n  Hint: ")
        raise LedgerError(
            f"ranks {', '.join(map(str, failed))} of the group have no ledger; "
            f"rank {rank}: {message}",
            hint=hint,
        )
