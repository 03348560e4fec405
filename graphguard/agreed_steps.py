"""A guard's steps in agreement with the other ranks of its group."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import TYPE_CHECKING, Any, Protocol

from graphguard import _core
from graphguard.agreement.group import Agreement
from graphguard.agreement.launches import (
    KINDS,
    SEEN_BITS,
    Launch,
    LaunchKind,
    NoticeKind,
    Outcome,
    Seen,
    Trouble,
    halves,
    key_digest,
)
from graphguard.audit.findings import ranks_text
from graphguard.batch import BatchDescriptor
from graphguard.blackbox.events import NO_NAME, DivergenceKind, Event, Flag
from graphguard.errors import LedgerError, RanksDiverged
from graphguard.log import logger
from graphguard.signature import GraphKey, Signature
from graphguard.verdict import Action, Reason, Verdict

if TYPE_CHECKING:
    from graphguard.blackbox.writer import BlackBox

Inputs = Mapping[str, Any] | None
Fits = Callable[[int, BatchDescriptor, Inputs], Verdict | None]
"""Whether a graph can serve a batch with these static tensors, and how."""

# A member of an enum takes four times as long to look up.
_PAD = Action.PAD

NOTICE_MARGIN = 64
"""Steps between an announcement and the step from which it holds. Ranks run a few steps ahead."""


class Signed(Protocol):
    """Graphs with what was recorded of them; a graph's id is its position."""

    @property
    def key(self) -> GraphKey:
        """The family that the graphs belong to."""

    @property
    def signatures(self) -> Sequence[Signature]:
        """What was recorded, by graph id."""


class AgreedSteps:
    """Publishes what a guard is about to launch, and does what the ranks decide.

    Args:
        agreement: The ranks; it must have a ledger.
        graphs: The graphs of the guard.
        box: The black box, if there is one.
        fits: Asked before a graph is launched that another rank has chosen.
        runs_eagerly: Whether the guard has an eager function.
        vote_seconds: How long ranks wait for each other in every step, or None for no vote.

    Attributes:
        ring: The black box as this guard writes it, or None.
        adopts: Whether this rank may do what another one has decided. Where its own decision is
            settled already with ranks outside of the group, it may not.
    """

    def __init__(
        self,
        agreement: Agreement,
        graphs: Signed,
        box: BlackBox | None,
        *,
        fits: Fits,
        runs_eagerly: bool,
        vote_seconds: float | None,
    ) -> None:
        assert agreement.ledger is not None  # noqa: S101 - the caller has joined
        self.agreement = agreement
        self.ring = box.ring.another() if box is not None else None
        self.adopts = True
        self._native = agreement.ledger.native
        self._places = range(len(agreement.ledger.ranks))
        self._graphs = graphs
        self._key = key_digest(graphs.key)
        self._names = (
            (box.name(graphs.key.label), box.name(agreement.name)) if box else (NO_NAME, NO_NAME)
        )
        self._fits = fits
        self._runs_eagerly = runs_eagerly
        self._vote_seconds = vote_seconds
        self._propose = self._native.propose
        self._said_disowned = False
        self._replays: list[int] = []
        self._by_digest: dict[tuple[int, int], int] = {}
        self._others = {
            kind: self._register(kind, (0, 0))
            for kind in (LaunchKind.EAGER, LaunchKind.CAPTURE, LaunchKind.ABORT)
        }
        agreement.names.add_key(graphs.key)
        self.add_graphs()

    def add_graphs(self) -> None:
        """Register the graphs that were captured since the last call."""
        for graph in range(len(self._replays), len(self._graphs.signatures)):
            self._replays.append(self._replay_of(graph))

    def replace_graph(self, graph: int) -> None:
        """Register a graph anew that was captured again."""
        self._replays[graph] = self._replay_of(graph)

    def decide(self, verdict: Verdict, batch: BatchDescriptor, inputs: Inputs) -> Verdict:
        """Publish a verdict and return the one that holds for all ranks.

        Raises:
            RanksDiverged: If this rank cannot do what the others do.
            LedgerError: If the ledger cannot be trusted.
        """
        graph = verdict.graph
        if graph is not None and verdict.action <= _PAD:
            launch = self._replays[graph]
        else:
            launch = self._others[KINDS[verdict.action]]
        if self._vote_seconds is None:
            status = self._propose(
                launch,
                verdict.reason,
                batch.num_reqs,
                batch.query_len,
                batch.num_tokens,
                batch.phase,
            )
        else:
            status = self._native.vote(
                launch,
                verdict.reason,
                batch.num_reqs,
                batch.query_len,
                batch.num_tokens,
                batch.phase,
                self._vote_seconds,
            )
            if self.ring is not None:
                self.ring.mark(Event.VOTE)
        return verdict if status == 0 else self.resolve(status, verdict, batch, inputs)

    def observe(self, graph: int | None, reason: Reason, batch: BatchDescriptor) -> None:
        """Publish what the program is about to do, and report what the others do instead."""
        launch = self._others[LaunchKind.EAGER] if graph is None else self._replays[graph]
        status = self._propose(
            launch, reason, batch.num_reqs, batch.query_len, batch.num_tokens, batch.phase
        )
        if status:
            self.report(status)

    def refuse(self, kind: DivergenceKind, why: str) -> None:
        """Tell all ranks that this one does not launch what it has published last.

        Nothing is launched by this group any more: the others may wait for this rank already.
        """
        step = self._native.step()
        self._native.settle(Outcome.REFUSED, Trouble.REFUSED, False)
        text = f"step {step} of {self.agreement.name} is refused: {why}"
        self.agreement.stop(self.agreement.report(kind, step, (), text))
        self.agreement.told()

    @property
    def step(self) -> int:
        """The step of the group that this rank has published last."""
        return self._native.step()

    @property
    def replays(self) -> Sequence[int]:
        """What the ledger calls the replay of each graph, by graph id."""
        return self._replays

    def announce(self, kind: NoticeKind, graph: int | None = None) -> int | None:
        """Announce something to all ranks; return the step from which it holds, or None."""
        digest = (0, 0) if graph is None else self._digest(graph)
        step = self._native.announce(kind, *digest, self._key, NOTICE_MARGIN)
        if step is None:
            logger().warning("%s cannot be announced any more for %s", kind.name, self._graphs.key)
        return step

    def concerns(self, key: int, digest: tuple[int, int]) -> tuple[bool, int | None]:
        """Return whether a notice is about this guard's key, and about which of its graphs."""
        return key == self._key, self._by_digest.get(digest)

    def _register(self, kind: LaunchKind, digest: tuple[int, int]) -> int:
        return self._native.add_launch(kind, *digest, self._key, self.ring, *self._names)

    def _replay_of(self, graph: int) -> int:
        signature = self._graphs.signatures[graph]
        digest = self._digest(graph)
        self.agreement.names.add_graph(digest, str(signature))
        self._by_digest.setdefault(digest, graph)
        return self._register(LaunchKind.REPLAY, digest)

    def _digest(self, graph: int) -> tuple[int, int]:
        shared = self._graphs.signatures[graph].shared_digest
        return halves(self.agreement.group_digests.get(shared, shared))

    def resolve(
        self, status: int, verdict: Verdict, batch: BatchDescriptor, inputs: Inputs
    ) -> Verdict:
        """Return the verdict that holds after what the ledger has answered to a proposal.

        Raises:
            RanksDiverged: If this rank cannot do what the others do.
            LedgerError: If the ledger cannot be trusted.
        """
        if status & (_core.DISOWNED | _core.STOPPED | _core.TROUBLE_TOLD):
            self._raise_if_over(status, verdict)
        if status & _core.NOTICES_DUE:
            self.agreement.take_notices()
        seen = Seen(status & SEEN_BITS)
        if seen is Seen.SAME:
            return verdict
        if seen is Seen.DIFFERS:
            return self._adopt(verdict, batch, inputs)
        raise self._refused(seen, verdict)

    def _adopt(self, verdict: Verdict, batch: BatchDescriptor, inputs: Inputs) -> Verdict:
        """Do what another rank has decided, if this one can."""
        _, place, fields = self._native.last()
        decided = Launch.of(fields)
        rank = self.agreement.global_rank(place)
        adopted = self._served(decided, batch, inputs)
        step = self._native.step()
        sides = self.agreement.sides(step)
        if adopted is None:
            self._native.settle(Outcome.REFUSED, Trouble.REFUSED, False)
            divergence = self.agreement.report(
                DivergenceKind.REFUSED,
                step,
                (rank,),
                f"step {step} of {self.agreement.name} is refused: rank {rank} decided on a "
                f"{self.agreement.names.describe(decided)}, which this rank cannot serve. {sides}",
            )
            self.agreement.stop(divergence)
            raise self._diverged(divergence.text, step, (rank,), verdict)
        self._native.settle(Outcome.ADOPTED, Trouble.NONE, True)
        self.agreement.report(
            DivergenceKind.ADOPTED,
            step,
            (rank,) if self._vote_seconds is None else self.agreement.unlike_mine(step),
            f"step {step} of {self.agreement.name} follows {self._whom(rank)}: {sides}",
        )
        if self.ring is not None:
            self.ring.replace(
                decided.digest[0],
                *decided.shape,
                adopted.action,
                Reason.ADOPTED,
                Flag.ADOPTED | Flag.ENFORCE,
            )
        return adopted

    def _whom(self, rank: int) -> str:
        return f"rank {rank}" if self._vote_seconds is None else "the vote"

    def _served(self, decided: Launch, batch: BatchDescriptor, inputs: Inputs) -> Verdict | None:
        """Return the verdict that serves another rank's decision, or None if none does."""
        if decided.key != self._key:
            return None
        if decided.kind is LaunchKind.ABORT:
            return Verdict(Action.ABORT, Reason.ADOPTED)
        if not self.adopts:
            return None
        if decided.kind is LaunchKind.REPLAY:
            graph = self._by_digest.get(decided.digest)
            return None if graph is None else self._fits(graph, batch, inputs)
        mine = (batch.num_reqs, batch.query_len, batch.num_tokens, int(batch.phase))
        if decided.shape != mine or not self._runs_eagerly:
            return None
        action = Action.EAGER if decided.kind is LaunchKind.EAGER else Action.RECAPTURE
        return Verdict(action, Reason.ADOPTED)

    def _refused(self, seen: Seen, verdict: Verdict) -> Exception:
        """Return the error for a step that no way is open for."""
        native, name = self._native, self.agreement.name
        step = native.step()
        place = native.last()[1]
        rank = self.agreement.global_rank(place)
        if seen is Seen.AHEAD:
            slowest = min(map(native.passed, self._places))
            behind = self._absent(slowest + 1)
            return self._diverged(
                f"this rank is {_core.LEDGER_SLOTS - 1} steps ahead of {ranks_text(behind)} of "
                f"{name}, at step {slowest}, and may not go on",
                step + 1,
                behind,
                verdict,
            )
        kind, text = {
            Seen.LAPPED: (DivergenceKind.LAPPED, f"rank {rank} is too far ahead to compare with"),
            Seen.DAMAGED: (
                DivergenceKind.DAMAGED,
                f"the ledger holds for rank {rank} what no rank has written",
            ),
            Seen.IMPOSSIBLE: (DivergenceKind.REFUSED, "no launch serves what all ranks want"),
            Seen.TIMED_OUT: (
                DivergenceKind.VOTE_TIMED_OUT,
                "not all ranks came to the vote in time",
            ),
        }[seen]
        trouble = Trouble.TIMED_OUT if seen is Seen.TIMED_OUT else Trouble.REFUSED
        native.settle(Outcome.REFUSED, trouble, False)
        divergence = self.agreement.report(
            kind,
            step,
            self._absent(step) if seen is Seen.TIMED_OUT else (),
            f"step {step} of {name} is refused: {text}. {self.agreement.sides(step)}",
        )
        self.agreement.stop(divergence)
        return self._diverged(divergence.text, step, divergence.ranks, verdict)

    def _absent(self, step: int) -> tuple[int, ...]:
        behind = [place for place in self._places if self._native.passed(place) < step]
        return tuple(map(self.agreement.global_rank, behind))

    def _raise_if_over(self, status: int, verdict: Verdict) -> None:
        """Raise if nothing may be launched any more: whoever launched would wait in vain."""
        if status & _core.DISOWNED:
            raise LedgerError(
                f"this process was forked from rank {self.agreement.rank} of "
                f"{self.agreement.name}, whose place in the ledger it must not use",
                hint="make guards in the process that runs their steps",
            )
        kind, step, place = self._native.trouble()
        if stopped := self.agreement.stopped_by:
            raise self._diverged(stopped.text, stopped.step, stopped.ranks, verdict)
        if Trouble(kind).fatal:
            divergence = self.agreement.report_trouble(Trouble(kind), step, place)
            self.agreement.stop(divergence)
            raise self._diverged(divergence.text, step, divergence.ranks, verdict)
        self._native.acknowledge_trouble()

    def _diverged(
        self, text: str, step: int, ranks: tuple[int, ...], verdict: Verdict
    ) -> RanksDiverged:
        if self.agreement.stopped_by is not None:
            self.agreement.told()
        return RanksDiverged(
            f"rank {self.agreement.rank}: {text}",
            step=step,
            ranks=ranks,
            verdict=verdict,
            hint="end all ranks of the group and start them again; `graphguard blackbox` shows "
            "what each did before",
        )

    def report(self, status: int) -> None:
        """Tell what was seen. In observe that is all."""
        native, name = self._native, self.agreement.name
        if status & _core.DISOWNED:
            if not self._said_disowned:
                self._said_disowned = True
                logger().warning(
                    "%s: steps of a process that was forked from rank %d are not compared; this is "
                    "said once",
                    name,
                    self.agreement.rank,
                )
            return
        if status & _core.NOTICES_DUE:
            native.take_due()
        seen = Seen(status & SEEN_BITS)
        step = native.step()
        if seen is Seen.SAME:
            native.acknowledge_trouble()
            return
        rank = self.agreement.global_rank(native.last()[1])
        if seen is Seen.DIFFERS:
            native.settle(Outcome.LAUNCHED, Trouble.DIFFERS, False)
            text = f"ranks differ at step {step} of {name}: {self.agreement.sides(step)}"
            self.agreement.report(DivergenceKind.DIFFERS, step, (rank,), text)
        else:
            native.settle(Outcome.LAUNCHED, Trouble.NONE, False)
            lapped = seen is Seen.LAPPED
            kind = DivergenceKind.LAPPED if lapped else DivergenceKind.DAMAGED
            why = "it is too far ahead" if lapped else "the ledger is damaged there"
            text = f"step {step} of {name} is not compared with rank {rank}: {why}"
            self.agreement.report(kind, step, (rank,), text)
        native.acknowledge_trouble()
