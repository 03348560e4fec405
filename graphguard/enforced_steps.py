"""Steps in ``enforce``: the guard decides, with the ranks of its group if it has one."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING, Any

from graphguard.batch import BatchDescriptor
from graphguard.errors import CaptureError
from graphguard.nvtx_ranges import annotated
from graphguard.policy import InputCheck
from graphguard.recaptures import Recaptures
from graphguard.static_inputs import StaticInputs
from graphguard.step_parts import StepParts
from graphguard.verdict import Action, Reason, Verdict

if TYPE_CHECKING:
    from graphguard.group_steps import GroupSteps

# A member of an enum takes four times as long to look up.
_PAD = Action.PAD


class EnforcedSteps:
    """Runs the steps of a guard that acts on its verdicts.

    Attributes:
        last_verdict: What was decided about the last step, or None before the first.
        group: The guard as a member of its group, or None.
    """

    def __init__(
        self,
        parts: StepParts,
        recaptures: Recaptures,
        changed: Callable[[], None],
    ) -> None:
        self.last_verdict: Verdict | None = None
        self.group: GroupSteps | None = None
        self._graphs = graphs = parts.graphs
        self._launcher = parts.launcher
        self._fallbacks = parts.fallbacks
        self._records = parts.records
        self._counts = parts.counts
        self._recaptures = recaptures
        self._changed = changed
        self._inputs = StaticInputs(graphs, parts.policy)
        self._checks_inputs = parts.policy.check_inputs is not InputCheck.OFF
        self._family = graphs.table.family(graphs.key)
        # Bound once: it is on the path of every step.
        self._check = annotated("check", graphs.table.check)

    def run(self, batch: BatchDescriptor, inputs: Mapping[str, Any] | None) -> Any:  # noqa: ANN401
        """Run one step: replay, pad, capture, run eagerly, or refuse."""
        group = self.group
        if group is not None and group.due:
            group.capture_due()
        checked = verdict = self._check(
            self._family, batch.num_reqs, batch.query_len, batch.num_tokens, batch.phase
        )
        if self._checks_inputs:
            verdict = self._inputs.check(verdict, inputs)
        if group is not None and (steps := group.steps) is not None:
            if verdict.graph is None or group.quarantined or self._checks_inputs:
                verdict = self._wished(group, verdict, batch)
            verdict = steps.decide(verdict, batch, inputs)
        else:
            self._records.check(verdict, batch)
        if verdict is not checked:
            self._counts.overrule(checked, verdict)
        self.last_verdict = verdict
        graph = verdict.graph
        if graph is not None and verdict.action <= _PAD:
            return self._launcher.replay(graph, batch)
        return self._diverge(verdict, batch)

    def _wished(self, group: GroupSteps, verdict: Verdict, batch: BatchDescriptor) -> Verdict:
        """Return what this rank would do, with everything in it that only this rank knows."""
        wished, why = group.wished(verdict, batch)
        if why:
            self._say_limit(wished, batch, why)
        return wished

    def _diverge(self, verdict: Verdict, batch: BatchDescriptor) -> Any:  # noqa: ANN401
        together = self.group is not None and self.group.steps is not None
        if verdict.reason.rank_local and verdict.action is not Action.ABORT and not together:
            self._fallbacks.require_alone(verdict, batch)
        if verdict.action is Action.RECAPTURE:
            capture = self._capture_together if together else self._capture_alone
            return capture(verdict, batch)
        if verdict.action is Action.EAGER:
            if verdict.reason is not Reason.ADOPTED:
                self._fallbacks.say_once(
                    verdict.reason, lambda: self._fallbacks.describe(verdict, batch)
                )
            return self._launcher.run_eagerly(verdict, batch)
        raise self._fallbacks.refused(verdict, batch)

    def _capture_alone(self, verdict: Verdict, batch: BatchDescriptor) -> Any:  # noqa: ANN401
        self._recaptures.raise_if_failed(verdict, batch)
        limit = self._recaptures.over_count(verdict)
        if limit is None and (limit := self._recaptures.over_memory()) is not None:
            # Ranks count their captures alike, but each has its own memory.
            self._fallbacks.require_alone(verdict, batch)
        if limit is not None:
            self._say_limit(verdict, batch, limit)
            return self._launcher.run_eagerly(verdict, batch)
        return self._launch_captured(self._recaptures.capture(verdict, batch), batch)

    def _capture_together(self, verdict: Verdict, batch: BatchDescriptor) -> Any:  # noqa: ANN401
        assert self.group is not None  # noqa: S101 - the caller has asked
        try:
            graph = self._recaptures.capture(verdict, batch)
        except CaptureError as error:
            # Every rank has learnt of it, so every rank runs the step eagerly.
            failure = f"{error.message}; such steps run eagerly"
            self._fallbacks.say_once("capture", lambda: failure)
            return self._launcher.run_eagerly(verdict, batch)
        self.group.captured(graph)
        return self._launch_captured(graph, batch)

    def _launch_captured(self, graph: int, batch: BatchDescriptor) -> Any:  # noqa: ANN401
        self._records.captured(self._graphs, graph)
        self._changed()
        return self._launcher.replay(graph, batch)

    def _say_limit(self, verdict: Verdict, batch: BatchDescriptor, limit: str) -> None:
        self._fallbacks.say_once(
            "limit",
            lambda: f"{self._fallbacks.describe(verdict, batch)}; {limit}, so it runs eagerly",
        )

    def fits(
        self, graph: int, batch: BatchDescriptor, inputs: Mapping[str, Any] | None
    ) -> Verdict | None:
        """Say how a graph that another rank has chosen serves a batch, or None if it does not."""
        verdict = self._graphs.table.check_graph(
            graph, batch.num_reqs, batch.query_len, batch.num_tokens, batch.phase
        )
        self._counts.forget(verdict)
        if verdict.action > Action.PAD:
            return None
        if self._checks_inputs and self._inputs.reason(graph, inputs) is not Reason.EXACT:
            return None
        return Verdict(verdict.action, Reason.ADOPTED, graph)
