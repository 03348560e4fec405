"""The guard of one model in a vLLM worker: what was captured of it, and every step it takes.

vLLM captures and replays by itself. The hooks of a runner tell this object what was captured and
what vLLM has chosen for a step; it says what should be done, in agreement with the other ranks.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING

from graphguard import _core
from graphguard.batch import BatchDescriptor
from graphguard.decisions import process_decisions
from graphguard.environment import Mode
from graphguard.errors import PaddingMismatch
from graphguard.log import logger
from graphguard.metrics import process_metrics
from graphguard.metrics.samples import STEP_BUCKETS, STEP_SHIFT
from graphguard.session import Session, process_rank
from graphguard.verdict import Action, Reason, Verdict
from graphguard.vllm.launch_records import record_alone, write_decision
from graphguard.vllm.left_out import leaving_out, never
from graphguard.vllm.model_graphs import ModelGraphs

if TYPE_CHECKING:
    from graphguard._core import BlackBox as Ring
    from graphguard.agreed_steps import AgreedSteps
    from graphguard.agreement.group import Agreement
    from graphguard.blackbox.writer import BlackBox
    from graphguard.vllm.padding import PaddingFinding

_PAD = Action.PAD

Take = Callable[[int, int, int, int, int], Verdict | None]
"""``take`` of :class:`graphguard._core.Steps`: a graph, requests, query length, tokens, phase."""


class ModelGuard(ModelGraphs):
    """What is known of one model's graphs, and the check of its steps.

    Args:
        role: ``target`` or ``drafter``.
        mode: How far the guard goes.
        session: Where signatures are kept for the manifest.

    Attributes:
        last_verdict: What was decided about the last step, or None before the first.
        launching: Notes that a launch begins.
        launched: Notes that it has returned.
        take: Checks and publishes a step in one call, which returns the verdict of one that is to
            be launched; None where that takes more than one call. See :meth:`unfinished`.
    """

    def __init__(self, role: str, mode: Mode, session: Session) -> None:
        super().__init__(role, mode, session)
        self.last_verdict: Verdict | None = None
        self._agreed: list[AgreedSteps] = []
        self._agreements: list[Agreement] = []
        self._ring: Ring | None = None
        self._role_name = 0
        self._launches = _core.Launches(STEP_SHIFT, STEP_BUCKETS)
        self.launching: Callable[[], None] = self._launches.begin
        self.launched: Callable[[], None] = self._launches.end
        self.take: Take | None = None
        self._steps: _core.Steps | None = None
        self._left_out: list[AgreedSteps] = []
        self._decisions = process_decisions()
        metrics = process_metrics()
        if metrics is not None:
            metrics.watch_launches(role, self._launches)

    @property
    def agreements(self) -> Sequence[Agreement]:
        """The groups of ranks that every step is compared with."""
        return self._agreements

    def seal(self, agreements: Sequence[Agreement], box: BlackBox | None) -> None:
        """Compare what all ranks captured, and from then on every step.

        Raises:
            AgreementError: When enforcing, if captures differ or a rank does not come in time.
            LedgerError: When enforcing, if there can be no ledger.
        """
        self._open(box)
        known = {id(steps.agreement): steps for steps in self._agreed}
        agreed: list[AgreedSteps] = []
        for agreement in agreements:
            outcome = agreement.seal(self.key, self.signatures)
            if outcome is None or agreement.ledger is None:
                continue
            steps = known.get(id(agreement))
            if steps is None:
                steps = self._join(agreement, box, first=not agreed)
            else:
                for graph in self._replaced:
                    steps.replace_graph(graph)
                steps.add_graphs()
            agreed.append(steps)
        self._replaced.clear()
        if not self._left_out:
            self._left_out = [leaving_out(self.key, steps.agreement, box) for steps in agreed]
        self._agreed = agreed
        self._agreements = [steps.agreement for steps in agreed]
        if agreed and agreed[0].ring is not None:
            self._ring = agreed[0].ring
            self._launches.write_to(self._ring)
        for agreement in self._agreements:
            if self._launches not in agreement.launches:
                agreement.launches.append(self._launches)
        self._take_directly()

    def agree(self, verdict: Verdict, graph: int | None, batch: BatchDescriptor) -> Verdict:
        """Publish what this rank is about to do, and return what holds for all ranks.

        Args:
            verdict: What :meth:`check` said.
            graph: The graph that is launched if nobody objects, or None.
            batch: What the step runs.

        Raises:
            RanksDiverged: When enforcing, if this rank cannot do what the others do.
            LedgerError: When enforcing, if the ledger cannot be trusted.
        """
        if not self._agreed:
            if self._ring is not None:
                record_alone(self._ring, self._role_name, self, verdict, graph, batch)
        elif self.enforces:
            for steps in self._agreed:
                verdict = steps.decide(verdict, batch, None)
        else:
            self._observe(verdict, graph, batch, self._agreed)
        return self._decided(verdict, graph, batch)

    def unfinished(self) -> tuple[Verdict | None, int]:
        """Return the verdict that :attr:`take` did not return, and what the ledger has answered.

        The answer is -1 where the batch does not fit the graph, and nothing was published.
        """
        return (None, -1) if self._steps is None else self._steps.last()

    def resolve(
        self, verdict: Verdict, answer: int, graph: int | None, batch: BatchDescriptor
    ) -> Verdict:
        """Return what holds for all ranks after a step was published, as :meth:`agree` does.

        Args:
            verdict: What was found of the batch.
            answer: What the ledger has answered.
            graph: The graph that was published.
            batch: What the step runs.

        Raises:
            RanksDiverged: When enforcing, if this rank cannot do what the others do.
            LedgerError: When enforcing, if the ledger cannot be trusted.
        """
        (steps,) = self._agreed
        if self.enforces:
            verdict = steps.resolve(answer, verdict, batch, None)
        else:
            try:
                steps.report(answer)
            except Exception as error:  # noqa: BLE001 - nothing of this may reach the engine
                self._not_compared(batch, error)
        return self._decided(verdict, graph, batch)

    def _decided(self, verdict: Verdict, graph: int | None, batch: BatchDescriptor) -> Verdict:
        self.last_verdict = verdict
        self._launches.replays = verdict.action <= _PAD
        if self._decisions is not None and verdict.reason is not Reason.EXACT:
            first = self._agreed[0] if self._agreed else None
            write_decision(self._decisions, first, self, verdict, graph, batch)
        return verdict

    def leave_out(self, batch: BatchDescriptor) -> None:
        """Publish that the model is not run in a step: the others may be waiting for it.

        Raises:
            RanksDiverged: When enforcing, if another rank runs it.
        """
        verdict = self._eager
        for steps in self._left_out:
            if self.enforces:
                steps.decide(verdict, batch, None)
            else:
                self._observe(verdict, None, batch, [steps])

    def padding_breaks(self, findings: Sequence[PaddingFinding]) -> None:
        """Tell of padded slots that hold what breaks a kernel.

        Raises:
            PaddingMismatch: When enforcing; all ranks learn that the step is not launched.
        """
        from graphguard.blackbox.events import DivergenceKind

        if (metrics := process_metrics()) is not None:
            for finding in findings:
                metrics.padding_violation(finding.invariant)
        text = f"{self.key.role}: {findings[0]}"
        if not self.enforces:
            for steps in self._agreed[:1]:
                steps.agreement.report(DivergenceKind.PADDING, steps.step, (), text)
            if not self._agreed:
                self.say_once(findings[0].invariant, text)
            return
        for steps in self._agreed:
            steps.refuse(DivergenceKind.PADDING, text)
        raise PaddingMismatch(
            f"rank {process_rank()[0]}: {text}",
            verdict=self.last_verdict,
            hint="GRAPHGUARD_PADDED=avoid runs padded steps outside of full graphs",
        )

    def _observe(
        self,
        verdict: Verdict,
        graph: int | None,
        batch: BatchDescriptor,
        agreed: Sequence[AgreedSteps],
    ) -> None:
        try:
            for steps in agreed:
                steps.observe(graph, verdict.reason, batch)
        except Exception as error:  # noqa: BLE001 - nothing of this may reach the engine
            self._not_compared(batch, error)

    def _not_compared(self, batch: BatchDescriptor, error: Exception) -> None:
        self.say_once("ledger", f"{self.key} {batch}: ranks are not compared: {error}")

    def _take_directly(self) -> None:
        """Let a step be taken in one call, where one group compares it and no log is kept."""
        self._steps = self.take = None
        if len(self._agreed) != 1 or self._decisions is not None:
            return
        (agreed,) = self._agreed
        assert agreed.agreement.ledger is not None  # noqa: S101 - its steps are compared
        self._steps = _core.Steps(self._table, agreed.agreement.ledger.native, self._launches)
        for graph, launch in enumerate(agreed.replays):
            self._steps.set_replay(graph, launch)
        self.take = self._steps.take

    def _join(self, agreement: Agreement, box: BlackBox | None, *, first: bool) -> AgreedSteps:
        from graphguard.agreed_steps import AgreedSteps

        # What one group has agreed on is published to the next. If that adopted something else,
        # the first one would launch what it did not publish.
        steps = AgreedSteps(
            agreement,
            self,
            box,
            fits=self._fits if first else never,
            runs_eagerly=first,
            vote_seconds=None,
        )
        agreement.on_notice(self._notice)
        return steps

    def _fits(self, graph: int, batch: BatchDescriptor, inputs: object) -> Verdict | None:
        del inputs
        verdict = self.check(graph, batch)
        if verdict.action > _PAD or graph in self.quarantined:
            return None
        return Verdict(verdict.action, Reason.ADOPTED, graph)

    def _notice(self, kind: int, key: int, digest: tuple[int, int], step: int) -> None:
        from graphguard.agreement.launches import NoticeKind

        mine, graph = self._agreed[0].concerns(key, digest)
        if not mine or graph is None or kind != NoticeKind.QUARANTINE:
            return
        logger().info("%s is quarantined from step %d", self.signatures[graph], step)
        self.quarantined.add(graph)

    def quarantine(self, graph: int) -> int | None:
        """Let no rank use a graph any more, from the same step on; return that step.

        Returns:
            The step from which it holds, or None if it holds at once or could not be announced.
        """
        from graphguard.agreement.launches import NoticeKind

        if not self._agreed:
            self.quarantined.add(graph)
            return None
        return self._agreed[0].announce(NoticeKind.QUARANTINE, graph)

    def _open(self, box: BlackBox | None) -> None:
        if box is not None and self._ring is None:
            self._role_name = box.name(self.key.label)
            self._ring = box.ring.another()
            self._launches.write_to(self._ring)
