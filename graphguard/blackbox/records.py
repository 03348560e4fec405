"""One record of a black box, and its numbers in words."""

from __future__ import annotations

from functools import lru_cache
from typing import Any

import msgspec

from graphguard.blackbox.events import NO_NAME, NOT_SET, DivergenceKind, Event, Flag
from graphguard.verdict import Action, Phase, Reason


class Record(msgspec.Struct, frozen=True, gc=False):
    """One record, as it was written. Numbers that this version has no word for are kept.

    Attributes:
        number: 1 for the first record of the process.
        time_ns: Nanoseconds since the epoch.
        step: The step in its group; 0 for what belongs to no step.
        digest: The first 64 bits of the digest of what is launched.
        num_reqs: Of the batch.
        query_len: Of the batch.
        num_tokens: Of the batch.
        name: The role of the graph, or the text of a note; empty if there is none.
        group: The name of the group of ranks; empty if there is none.
        event: An :class:`Event`.
        action: An :class:`Action`, or 255.
        reason: A :class:`Reason`, or 255.
        phase: A :class:`Phase`, or 255.
        peer: The other rank, or 65535.
        flags: Of :class:`Flag`.
        detail: What the event defines: for a divergence, a :class:`DivergenceKind`.
    """

    number: int
    time_ns: int
    step: int
    digest: int
    num_reqs: int
    query_len: int
    num_tokens: int
    name: str
    group: str
    event: int
    action: int
    reason: int
    phase: int
    peer: int
    flags: int
    detail: int

    @property
    def role(self) -> str:
        """The role of the graph; empty if there is none."""
        return "" if self.event == Event.NOTE else self.name

    @property
    def note(self) -> str:
        """The text of a note; empty if this is none."""
        return self.name if self.event == Event.NOTE else ""

    @property
    def event_name(self) -> str:
        """The event in one word: ``replay_begin``."""
        return _word(Event, self.event)

    @property
    def batch(self) -> str:
        """The batch descriptor as text, ``16x2``; empty if there is none."""
        return batch_text(self.num_reqs, self.query_len, self.num_tokens, self.phase)

    @property
    def verdict(self) -> str:
        """The verdict as text, ``replay (exact)``; empty if there is none."""
        return _verdict(self.action, self.reason)

    @property
    def action_name(self) -> str:
        """The action in one word; empty if there is none."""
        return "" if self.action == NOT_SET else _word(Action, self.action)

    @property
    def reason_name(self) -> str:
        """The reason in one word; empty if there is none."""
        return "" if self.reason == NOT_SET else _word(Reason, self.reason)

    @property
    def peer_rank(self) -> int | None:
        """The other rank, if there is one."""
        return None if self.peer == NO_NAME else self.peer

    @property
    def divergence(self) -> str:
        """What kind of divergence this is, in one word; empty if it is none."""
        return _word(DivergenceKind, self.detail) if self.event == Event.DIVERGENCE else ""

    @property
    def flag_names(self) -> tuple[str, ...]:
        """The flags that are set, in words."""
        return _flags(self.flags)


def _word(kind: Any, number: int) -> str:  # noqa: ANN401 - one of the enums of a record
    try:
        return str(kind(number))
    except ValueError:
        return f"{kind.__name__.lower().removesuffix('kind')} {number}"


@lru_cache(maxsize=4096)
def batch_text(num_reqs: int, query_len: int, num_tokens: int, phase: int) -> str:
    """Return a batch descriptor as text, ``16x2``; empty if there is none."""
    if num_reqs == 0:
        return f"{num_tokens}t" if num_tokens else ""
    tokens = "" if num_reqs * query_len == num_tokens else f"/{num_tokens}"
    shown = "" if phase in {Phase.DECODE, NOT_SET} else f":{_word(Phase, phase)}"
    return f"{num_reqs}x{query_len}{tokens}{shown}"


@lru_cache(maxsize=1024)
def _verdict(action: int, reason: int) -> str:
    if action == NOT_SET:
        return ""
    given = "" if reason == NOT_SET else f" ({_word(Reason, reason)})"
    return f"{_word(Action, action)}{given}"


@lru_cache(maxsize=256)
def _flags(flags: int) -> tuple[str, ...]:
    known = [str(flag.name).lower() for flag in Flag if flags & flag]
    rest = flags & ~sum(Flag)
    return (*known, *([f"flags {rest:#x}"] if rest else []))
