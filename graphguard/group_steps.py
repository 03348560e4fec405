"""A guard as a member of a group: joining, sealing, and what is announced to all ranks."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from graphguard.agreed_steps import NOTICE_MARGIN, AgreedSteps, Fits
from graphguard.agreement.group import Agreement, agreement_of
from graphguard.agreement.launches import NoticeKind
from graphguard.batch import BatchDescriptor
from graphguard.blackbox.writer import BlackBox
from graphguard.errors import AgreementError, CaptureError
from graphguard.graph_set import GraphSet
from graphguard.log import logger
from graphguard.policy import Policy
from graphguard.recaptures import Recaptures
from graphguard.signature import Signature
from graphguard.verdict import Action, Reason, Verdict


class GroupSteps:
    """What a guard does together with the other ranks of its group.

    Args:
        group: What ``guard(group=...)`` was given.
        graphs: The graphs of the guard.
        policy: What it does about a batch that does not fit.
        recaptures: Its captures after warm-up.
        fits: Asked before a graph is launched that another rank has chosen.
        runs_eagerly: Whether the guard has an eager function.

    Attributes:
        steps: How a step is agreed on, or None before :meth:`seal` and where ranks cannot be
            compared.
        quarantined: Graphs that no rank uses.
        due: Graphs that all ranks capture again before their next step.
    """

    def __init__(
        self,
        group: Any,  # noqa: ANN401 - whatever guard() takes
        graphs: GraphSet,
        policy: Policy,
        recaptures: Recaptures,
        *,
        fits: Fits,
        runs_eagerly: bool,
    ) -> None:
        self.steps: AgreedSteps | None = None
        self.agreement: Agreement | None = None
        # A process group that is kept alive here could not be taken down, and would end the process
        # with an abort. Only a function, for a group that may not be there yet, is kept.
        self._later = group if callable(group) else None
        if self._later is None:
            self.agreement = agreement_of(group, policy.mode)
        self._graphs = graphs
        self._policy = policy
        self._recaptures = recaptures
        self._fits = fits
        self._runs_eagerly = runs_eagerly
        self.quarantined: set[int] = set()
        self.due: list[int] = []
        self._announced: set[tuple[NoticeKind, int | None]] = set()
        # For each graph the step of its last notice. One that comes less than the margin later was
        # announced before any rank had passed that step: what it saw was captured then.
        self._captured_again: dict[int, int] = {}
        self._apart = False

    def seal(self, box: BlackBox | None, failure: str = "") -> None:
        """Compare the graphs of all ranks, and from then on agree on every step.

        Args:
            box: The black box of the process.
            failure: Why this rank could not capture its graphs, if it could not.

        Raises:
            AgreementError: When enforcing, if captures differ, failed on another rank, or a rank
                does not come in time.
            LedgerError: When enforcing, if there can be no ledger.
        """
        if self._apart and self.steps is not None:
            self.steps.add_graphs()
            return
        agreement = self._agreement()
        outcome = agreement.seal(self._graphs.key, self._graphs.signatures, failure)
        if outcome is None or agreement.ledger is None:
            # In observe: graphs captured since are unknown to the others.
            self.steps = None
            return
        if outcome.failures and not failure and agreement.enforces:
            rank, text = next(iter(outcome.failures.items()))
            raise AgreementError(
                f"rank {rank} of {agreement.name} could not capture {self._graphs.key}: {text}",
                hint="look at the cause on that rank; all ranks must capture the same",
            )
        # A program that is only observed may answer a failure by captures that other ranks do not
        # make, and must not wait for them. All ranks know of the failure, so none seals again.
        self._apart = bool(outcome.failures) and not agreement.enforces
        if self.steps is not None:
            self.steps.add_graphs()
            return
        self.steps = AgreedSteps(
            agreement,
            self._graphs,
            box,
            fits=self._fits,
            runs_eagerly=self._runs_eagerly,
            vote_seconds=self._policy.vote_seconds,
        )
        self._recaptures.agree_by(self._agree)
        agreement.on_notice(self._notice)

    def wished(self, verdict: Verdict, batch: BatchDescriptor) -> tuple[Verdict, str]:
        """Return what this rank would do about a step, and why not what the policy says.

        What comes out is what is published, so that everything that only this rank knows is in it.
        """
        if verdict.graph is not None and verdict.graph in self.quarantined:
            action = self._policy.fallbacks[Reason.QUARANTINED]
            eager = Action.EAGER if action is Action.RECAPTURE else action
            return Verdict(eager, Reason.QUARANTINED, verdict.graph), ""
        if verdict.action is not Action.RECAPTURE:
            return verdict, ""
        limit = self._recaptures.ruled_out(verdict, batch)
        if limit is None and not verdict.reason.rank_local:
            return verdict, ""
        if limit is None:
            self._announce_once(NoticeKind.CAPTURE_AGAIN, verdict.graph)
        return Verdict(Action.EAGER, verdict.reason, verdict.graph), limit or ""

    def captured(self, graph: int) -> None:
        """Take note of a graph that all ranks have captured after warm-up."""
        assert self.steps is not None  # noqa: S101 - nothing is captured together before
        self.steps.add_graphs()
        if self._recaptures.over_memory() is not None:
            self._announce_once(NoticeKind.NO_MORE_CAPTURES, None)

    def capture_due(self) -> None:
        """Capture again what was announced for this step. All ranks do it at the same step.

        A graph that cannot be captured on every rank is quarantined on all of them.

        Raises:
            AgreementError: If ranks captured different things.
        """
        assert self.steps is not None  # noqa: S101 - notices come from it
        due, self.due = self.due, []
        for graph in due:
            self._announced.discard((NoticeKind.CAPTURE_AGAIN, graph))
            moved = Verdict(Action.RECAPTURE, Reason.INPUT_ADDRESS, graph)
            batch = self._graphs.signatures[graph].batch
            try:
                self._recaptures.capture(moved, batch)
            except CaptureError as error:
                self.quarantined.add(graph)
                self._captured_again.pop(graph, None)
                logger().warning("%s %s is quarantined: %s", self._graphs.key, batch, error)
            else:
                self.steps.replace_graph(graph)
                self.quarantined.discard(graph)

    def announce(self, kind: NoticeKind, graph: int) -> int | None:
        """Announce something about a graph; return the step from which it holds on all ranks."""
        assert self.steps is not None  # noqa: S101 - the guard has asked
        return self.steps.announce(kind, graph)

    def _agreement(self) -> Agreement:
        if self.agreement is None:
            self.agreement = agreement_of(self._later, self._policy.mode)
            self._later = None
        return self.agreement

    def _announce_once(self, kind: NoticeKind, graph: int | None) -> None:
        if (kind, graph) not in self._announced and self.steps is not None:
            self._announced.add((kind, graph))
            self.steps.announce(kind, graph)

    def _notice(self, kind: int, key: int, digest: tuple[int, int], step: int) -> None:
        assert self.steps is not None  # noqa: S101 - notices come from it
        mine, graph = self.steps.concerns(key, digest)
        if not mine:
            return
        logger().info("%s of %s holds from step %d", NoticeKind(kind).name, self._graphs.key, step)
        if kind == NoticeKind.NO_MORE_CAPTURES:
            self._recaptures.close()
        elif graph is None:
            return
        elif kind == NoticeKind.QUARANTINE:
            self.quarantined.add(graph)
            self.due = [other for other in self.due if other != graph]
            self._captured_again.pop(graph, None)
        elif graph not in self.due and step >= self._captured_again.get(graph, 0) + NOTICE_MARGIN:
            self.due.append(graph)
            self._captured_again[graph] = step

    def _agree(self, signatures: Sequence[Signature], failure: str) -> Mapping[int, str]:
        assert self.agreement is not None  # noqa: S101 - it has sealed before
        outcome = self.agreement.seal(self._graphs.key, signatures, failure)
        if outcome is None:
            return {}
        return outcome.failures
