"""Steps in ``off`` and ``observe``: the program decides, the guard looks on."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import TYPE_CHECKING, Any

from graphguard.batch import BatchDescriptor
from graphguard.environment import Mode
from graphguard.errors import ConfigurationError
from graphguard.nvtx_ranges import annotated
from graphguard.policy import InputCheck
from graphguard.static_inputs import StaticInputs
from graphguard.step_parts import StepParts
from graphguard.verdict import Action, Verdict

if TYPE_CHECKING:
    from graphguard.group_steps import GroupSteps

# A member of an enum takes four times as long to look up.
_PAD = Action.PAD

Choose = Callable[[BatchDescriptor, Sequence[BatchDescriptor]], BatchDescriptor | None]


class ObservedSteps:
    """Runs the steps of a guard that never interferes.

    Attributes:
        last_verdict: What was found about the last step, or None before the first.
    """

    def __init__(
        self,
        parts: StepParts,
        choose: Choose | None,
        group: GroupSteps | None,
    ) -> None:
        self.last_verdict: Verdict | None = None
        self._graphs = graphs = parts.graphs
        self._launcher = parts.launcher
        self._fallbacks = parts.fallbacks
        self._records = parts.records
        self._counts = parts.counts
        self._choose = choose
        self._group = group
        self._inputs = StaticInputs(graphs, parts.policy)
        self._checks_inputs = parts.policy.check_inputs is not InputCheck.OFF
        self._observes = parts.policy.mode is Mode.OBSERVE
        self._family = graphs.table.family(graphs.key)
        self._check = annotated("check", graphs.table.check)

    def run(self, batch: BatchDescriptor, inputs: Mapping[str, Any] | None) -> Any:  # noqa: ANN401
        """Run one step as the program would, and in observe check it."""
        if self._choose is None:
            verdict = self._check(
                self._family, batch.num_reqs, batch.query_len, batch.num_tokens, batch.phase
            )
            graph = verdict.graph
        else:
            graph, verdict = self._checked_choice(self._choose, batch)
        if not self._observes:
            return self._launch(graph, verdict, batch)
        # No failure of what follows may reach the program.
        if self._checks_inputs:
            verdict = self._checked_inputs(verdict, batch, inputs)
        self.last_verdict = verdict
        if verdict.action > _PAD:
            self._tell_misfit(verdict, batch)
        try:
            group = self._group
            if group is not None and group.steps is not None:
                group.steps.observe(graph, verdict.reason, batch)
            else:
                self._records.check(verdict, batch)
        except Exception as error:  # noqa: BLE001
            self._tell_failure("ledger", f"{batch}: ranks are not compared: {error}")
        if graph is not None:
            return self._launcher.replay(graph, batch)
        return self._launcher.run_eagerly(verdict, batch)

    def _tell_misfit(self, verdict: Verdict, batch: BatchDescriptor) -> None:
        self._fallbacks.say_once(verdict.reason, lambda: self._fallbacks.describe(verdict, batch))

    def _tell_failure(self, topic: str, failure: str) -> None:
        self._fallbacks.say_once(topic, lambda: f"{self._graphs.key} {failure}")

    def _launch(self, graph: int | None, verdict: Verdict, batch: BatchDescriptor) -> Any:  # noqa: ANN401
        if graph is not None:
            return self._launcher.replay(graph, batch)
        return self._launcher.run_eagerly(verdict, batch)

    def _checked_choice(self, choose: Choose, batch: BatchDescriptor) -> tuple[int | None, Verdict]:
        """Ask the program for a graph, and check the batch against what it chose."""
        arguments = (batch.num_reqs, batch.query_len, batch.num_tokens, batch.phase)
        chosen = choose(batch, self._graphs.batches)
        if chosen is None:
            return None, self._check(self._family, *arguments)
        graph = self._chosen(batch, chosen)
        return graph, self._graphs.table.check_graph(graph, *arguments)

    def _chosen(self, batch: BatchDescriptor, chosen: BatchDescriptor) -> int:
        graph = self._graphs.by_batch.get(chosen)
        if graph is None:
            raise ConfigurationError(
                f"choose returned {chosen} for {batch}, and {self._graphs.key} has no such graph",
                hint="return one of the descriptors that it is given, or None to run eagerly",
            )
        return graph

    def _checked_inputs(
        self, verdict: Verdict, batch: BatchDescriptor, inputs: Mapping[str, Any] | None
    ) -> Verdict:
        try:
            checked = self._inputs.check(verdict, inputs)
            self._counts.overrule(verdict, checked)
        except Exception as error:  # noqa: BLE001
            self._tell_failure("inputs", f"{batch}: inputs are not checked: {error}")
            return verdict
        return checked
