"""The check of static tensors before a launch, and the count of verdicts that it changes."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping
from typing import Any

from graphguard.graph_set import GraphSet
from graphguard.graphs.tensors import input_specs
from graphguard.policy import InputCheck, Policy
from graphguard.verdict import Reason, Verdict


class StaticInputs:
    """Compares the static tensors of a step with those that its graph was captured with.

    Args:
        graphs: Where the captured graphs are.
        policy: What is checked, and what is done about a difference.
    """

    def __init__(self, graphs: GraphSet, policy: Policy) -> None:
        self._graphs = graphs
        self._policy = policy
        self._addresses = policy.check_inputs is InputCheck.ADDRESS

    def reason(self, graph: int, inputs: Mapping[str, Any] | None) -> Reason:
        """Return how the tensors of a step differ from the recorded ones; EXACT if they do not.

        Args:
            graph: The graph that is to be launched.
            inputs: The tensors by name, or None for those that the graph was captured with.
        """
        table = self._graphs.table
        given = self._graphs.captured[graph].inputs if inputs is None else inputs
        recorded = [spec.name for spec in self._graphs.signatures[graph].inputs]
        if sorted(given) != sorted(recorded):
            return Reason.INPUT_COUNT
        specs = input_specs({name: given[name] for name in recorded})
        return Reason(table.check_inputs(graph, table.input_fields(specs), self._addresses)[0])

    def check(self, verdict: Verdict, inputs: Mapping[str, Any] | None) -> Verdict:
        """Return the verdict, or the policy's if the static tensors are not those recorded."""
        if verdict.graph is None:
            return verdict
        reason = self.reason(verdict.graph, inputs)
        if reason is Reason.EXACT:
            return verdict
        return Verdict(self._policy.fallbacks[reason], reason, verdict.graph)


class VerdictCounts:
    """How often each verdict was given. The table counts its own; this, what took their place."""

    def __init__(self, graphs: GraphSet) -> None:
        self._table = graphs.table
        self._overruled: Counter[Verdict] = Counter()
        self._instead: Counter[Verdict] = Counter()

    def overrule(self, verdict: Verdict, instead: Verdict) -> None:
        """Count a verdict in the place of one that the table has given."""
        if instead is not verdict:
            self._overruled[verdict] += 1
            self._instead[instead] += 1

    def forget(self, verdict: Verdict) -> None:
        """Leave out a verdict that the table has given to a question of the guard's own."""
        self._overruled[verdict] += 1

    def counts(self) -> dict[Verdict, int]:
        """Return every verdict given so far, with how often."""
        given = Counter(dict(self._table.counts())) + self._instead
        return dict(given - self._overruled)
