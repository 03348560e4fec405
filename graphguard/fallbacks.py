"""What a guard does when a graph does not fit, and what it says about it."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Any

from graphguard.batch import BatchDescriptor
from graphguard.environment import Mode
from graphguard.errors import GuardMismatch
from graphguard.graph_set import GraphSet
from graphguard.log import logger
from graphguard.session import process_rank
from graphguard.verdict import Reason, Verdict

if TYPE_CHECKING:
    from graphguard.group_steps import GroupSteps

Eager = Callable[[BatchDescriptor], Any]


class Fallbacks:
    """Eager runs and refusals of one guard, and its messages.

    Args:
        graphs: The graphs of the guard.
        eager: Runs a step without a graph.
    """

    def __init__(self, graphs: GraphSet, eager: Eager | None) -> None:
        self._graphs = graphs
        self._eager = eager
        self._said: set[str | Reason] = set()

    def run_eagerly(self, verdict: Verdict, batch: BatchDescriptor) -> Any:  # noqa: ANN401
        """Run a step without a graph.

        Raises:
            GuardMismatch: If the guard has no eager function.
        """
        if self._eager is None:
            raise GuardMismatch(
                f"{self.describe(verdict, batch)}, and there is no eager function to run instead",
                verdict=verdict,
                hint="give guard(..., eager=...)",
            )
        return self._eager(batch)

    def require_alone(self, verdict: Verdict, batch: BatchDescriptor) -> None:
        """Refuse the step if other ranks take part in it and may not see what this one sees.

        Raises:
            GuardMismatch: If they do.
        """
        _, ranks = process_rank()
        # Before the first graph nobody knows whether they communicate.
        if self._graphs.communicates or (ranks > 1 and not self._graphs.signatures):
            raise GuardMismatch(
                f"{self.describe(verdict, batch)}; only this rank can see that, and its graphs "
                "may hold collectives: running this step another way would leave the others "
                "waiting",
                verdict=verdict,
                hint="give guard(..., group=...) the ranks that share the collectives, or keep "
                "static tensors in place and memory limits out of reach on every rank",
            )

    def refused(self, verdict: Verdict, batch: BatchDescriptor) -> GuardMismatch:
        """Return the error for a step that the policy refuses."""
        return GuardMismatch(
            self.describe(verdict, batch),
            verdict=verdict,
            hint="capture a graph for this batch at warm-up, or let on_divergence run it eagerly",
        )

    def describe(self, verdict: Verdict, batch: BatchDescriptor) -> str:
        """Return in words why a batch is not replayed."""
        rank, _ = process_rank()
        recorded = ", ".join(map(str, self._graphs.batches)) or "none"
        return (
            f"rank {rank}: {self._graphs.key} cannot replay {batch}: {verdict.reason.explanation} "
            f"(recorded: {recorded})"
        )

    def armed(self, mode: Mode, group: GroupSteps | None) -> str:
        """Return the line that says whether the guard is armed, and what is not covered."""
        rank, _ = process_rank()
        if mode is Mode.OFF:
            return f"rank {rank}: {self._graphs.key} is not guarded (mode off)"
        calls = sum(len(signature.collectives) for signature in self._graphs.signatures)
        if group is None:
            ranks = "ranks are not compared at run time, since the guard has no group"
        elif group.steps is None or group.agreement is None:
            ranks = "ranks are not compared at run time, since they could not meet"
        else:
            ranks = f"steps are compared with the ranks of {group.agreement.name}"
        return (
            f"rank {rank}: {self._graphs.key} is guarded (mode {mode}): "
            f"{len(self._graphs.batches)} graphs with {calls} collective calls of "
            f"torch.distributed; others are not seen, and {ranks}"
        )

    def say_once(self, topic: str | Reason, message: Callable[[], str]) -> None:
        """Log a warning, the first time for its topic. Only then the message is asked for."""
        if topic not in self._said:
            self._said.add(topic)
            logger().warning("%s; this is said once", message())
