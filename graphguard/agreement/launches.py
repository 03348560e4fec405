"""What ranks publish in the ledger, in words.

The numbers of these enums are those of ``csrc/core/ledger.h``.
"""

from __future__ import annotations

from enum import IntEnum
from typing import TYPE_CHECKING

import msgspec

from graphguard.batch import BatchDescriptor
from graphguard.digest import digest, encode
from graphguard.errors import DescriptorError
from graphguard.signature import GraphKey
from graphguard.verdict import Action, Phase, Reason

if TYPE_CHECKING:
    from graphguard._core import LaunchFields

SEEN_BITS = 0xF
"""The bits of an answer of the native ledger that hold a :class:`Seen`."""


class LaunchKind(IntEnum):
    """What kind of launch a rank has published."""

    REPLAY = 0
    EAGER = 1
    CAPTURE = 2
    ABORT = 3


class Seen(IntEnum):
    """What a rank saw of the others when it had published."""

    SAME = 0
    DIFFERS = 1
    LAPPED = 2
    DAMAGED = 3
    AHEAD = 4
    IMPOSSIBLE = 5
    TIMED_OUT = 6


class Outcome(IntEnum):
    """What became of a step on a rank."""

    PENDING = 0
    LAUNCHED = 1
    ADOPTED = 2
    REFUSED = 3
    TIMED_OUT = 4


class Trouble(IntEnum):
    """What a rank has told all others."""

    NONE = 0
    DIFFERS = 1
    REFUSED = 2
    TIMED_OUT = 3
    DAMAGED = 4
    """What the ledger says that no rank can have told."""

    @property
    def fatal(self) -> bool:
        """Whether ranks may wait in vain, so that nobody may go on."""
        return self >= Trouble.REFUSED


class NoticeKind(IntEnum):
    """What is announced ahead of the step from which it holds."""

    QUARANTINE = 1
    CAPTURE_AGAIN = 2
    NO_MORE_CAPTURES = 3


KINDS = {
    Action.REPLAY: LaunchKind.REPLAY,
    Action.PAD: LaunchKind.REPLAY,
    Action.RECAPTURE: LaunchKind.CAPTURE,
    Action.EAGER: LaunchKind.EAGER,
    Action.ABORT: LaunchKind.ABORT,
}

_NOUNS = {
    LaunchKind.REPLAY: "replay",
    LaunchKind.EAGER: "eager run",
    LaunchKind.CAPTURE: "capture",
    LaunchKind.ABORT: "refusal",
}


class Launch(msgspec.Struct, frozen=True):
    """What a rank has published for a step.

    Attributes:
        kind: What kind of launch.
        reason: Why that.
        key: Digest of the graph key.
        digest: The shared digest of the graph in two halves; zero where no graph is replayed.
        shape: Requests, query length, tokens and phase of the batch.
    """

    kind: LaunchKind
    reason: Reason
    key: int
    digest: tuple[int, int]
    shape: tuple[int, int, int, int]

    @classmethod
    def of(cls, fields: LaunchFields) -> Launch:
        """Build a launch from the numbers of the native ledger."""
        kind, reason, key, high, low, *shape = fields
        num_reqs, query_len, num_tokens, phase = shape
        return cls(
            LaunchKind(kind),
            Reason(reason),
            key,
            (high, low),
            (num_reqs, query_len, num_tokens, phase),
        )

    def same_as(self, other: Launch) -> bool:
        """Whether both launch the same collectives."""
        return (self.kind, self.key, self.digest) == (other.kind, other.key, other.digest) and (
            self.kind is LaunchKind.REPLAY or self.shape == other.shape
        )

    @property
    def identity(self) -> str:
        """What tells it apart from others that are called alike."""
        return f"digest {self.digest[0]:016x}{self.digest[1]:016x}, family {self.key:016x}"

    @property
    def batch_text(self) -> str:
        """The batch in its text form."""
        num_reqs, query_len, num_tokens, phase = self.shape
        uniform = num_reqs > 0 and num_reqs * query_len == num_tokens
        try:
            return str(BatchDescriptor(num_reqs, query_len, num_tokens, uniform, Phase(phase)))
        except DescriptorError:
            return f"{num_reqs}x{query_len}/{num_tokens}"


def key_digest(key: GraphKey) -> int:
    """Return the digest by which the ledger knows a graph key, in 64 bits."""
    return int(digest([encode((key.role, key.mode.value, key.variant))])[:16], 16)


def halves(shared_digest: str) -> tuple[int, int]:
    """Return a digest of 32 hexadecimal digits as two numbers."""
    return int(shared_digest[:16], 16), int(shared_digest[16:], 16)


class Names:
    """What digests stand for, to speak of the launches of other ranks."""

    def __init__(self) -> None:
        self._keys: dict[int, str] = {}
        self._graphs: dict[tuple[int, int], str] = {}

    def add_key(self, key: GraphKey) -> None:
        """Learn the name of a family of graphs."""
        self._keys[key_digest(key)] = str(key)

    def add_graph(self, digest: tuple[int, int], name: str) -> None:
        """Learn the name of a graph."""
        self._graphs.setdefault(digest, name)

    def describe(self, launch: Launch) -> str:
        """Return a launch in words: ``replay of target/full 16x2 for 15x2``."""
        noun = _NOUNS[launch.kind]
        if launch.kind is LaunchKind.REPLAY:
            graph = self._graphs.get(launch.digest)
            if graph is None:
                graph = f"a graph unknown here ({launch.digest[0]:016x}) of {self._key(launch)}"
            batch = "" if graph.endswith(f" {launch.batch_text}") else f" for {launch.batch_text}"
            return f"{noun} of {graph}{batch}"
        # Where it does not matter for which batch, none is published.
        batch = f" {launch.batch_text}" if any(launch.shape[:3]) else ""
        return f"{noun} of {self._key(launch)}{batch} ({launch.reason})"

    def _key(self, launch: Launch) -> str:
        return self._keys.get(launch.key, f"a role unknown here ({launch.key:016x})")
