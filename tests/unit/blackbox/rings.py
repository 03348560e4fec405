"""Black boxes of made-up ranks, all written by this process."""

from __future__ import annotations

from pathlib import Path

import pytest

from graphguard.batch import BatchDescriptor
from graphguard.blackbox.events import Event
from graphguard.blackbox.writer import BlackBox, open_box
from graphguard.verdict import Action, Reason, Verdict

EXACT = Verdict(Action.REPLAY, Reason.EXACT)
PADDED = Verdict(Action.PAD, Reason.PADDED)
EAGER = Verdict(Action.EAGER, Reason.QUERY_LENGTH)


class Rank:
    """A rank that records what it is told to, in a group ``tp``."""

    def __init__(self, box: BlackBox, group: str = "tp") -> None:
        self.box = box
        self.group = group

    def check(
        self,
        step: int,
        verdict: Verdict = EXACT,
        batch: str = "16x2",
        *,
        role: str = "target",
        digest: int = 0xABCD,
        flags: int = 0,
    ) -> None:
        described = BatchDescriptor.parse(batch)
        self.box.ring.check(
            self.box.name(role),
            self.box.name(self.group),
            step,
            digest,
            described.num_reqs,
            described.query_len,
            described.num_tokens,
            described.phase,
            verdict.action,
            verdict.reason,
            flags,
        )
        self.eager = verdict.action == Action.EAGER

    def begin(self) -> None:
        self.box.ring.mark(Event.EAGER_BEGIN if self.eager else Event.REPLAY_BEGIN)

    def end(self) -> None:
        self.box.ring.mark(Event.EAGER_END if self.eager else Event.REPLAY_END)

    def run(
        self,
        step: int,
        verdict: Verdict = EXACT,
        batch: str = "16x2",
        *,
        role: str = "target",
        digest: int = 0xABCD,
    ) -> None:
        """Check, launch and end a step."""
        self.check(step, verdict, batch, role=role, digest=digest)
        self.begin()
        self.end()

    def diverge(self, step: int, kind: int, peer: int) -> None:
        self.box.record(
            Event.DIVERGENCE, role="target", group=self.group, step=step, peer=peer, detail=kind
        )


def open_ranks(
    directory: Path, world_size: int, monkeypatch: pytest.MonkeyPatch, *, entries: int = 256
) -> list[Rank]:
    """Open a ring for each rank of a job."""
    monkeypatch.setenv("WORLD_SIZE", str(world_size))
    ranks = []
    for rank in range(world_size):
        monkeypatch.setenv("RANK", str(rank))
        ranks.append(Rank(open_box(directory, entries)))
    return ranks
