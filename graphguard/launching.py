"""Launching a graph, or running a step without one."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Any

from graphguard.batch import BatchDescriptor
from graphguard.fallbacks import Fallbacks
from graphguard.graph_set import GraphSet
from graphguard.nvtx_ranges import annotated
from graphguard.step_records import StepRecords
from graphguard.verdict import Verdict

if TYPE_CHECKING:
    from graphguard.graphs import Graph

FillPadding = Callable[[BatchDescriptor, BatchDescriptor], None]
Unpad = Callable[[Any, BatchDescriptor, BatchDescriptor], Any]

# Events of graphguard.blackbox.events, which is not loaded before there is a black box.
_REPLAY_BEGIN, _REPLAY_END, _EAGER_BEGIN, _EAGER_END = 4, 5, 6, 7


class Launcher:
    """Runs the steps of one guard, each between two records in the black box.

    Args:
        graphs: The graphs of the guard.
        fallbacks: Runs a step eagerly.
        records: Where it is recorded.
        fill_padding: Called before a padded replay.
        unpad: Cuts padded rows off the outputs.
    """

    def __init__(
        self,
        graphs: GraphSet,
        fallbacks: Fallbacks,
        records: StepRecords,
        fill_padding: FillPadding | None,
        unpad: Unpad | None,
    ) -> None:
        self._graphs = graphs
        self._fallbacks = fallbacks
        self._records = records
        self._fill_padding = fill_padding
        self._unpad = unpad
        annotated_replay = annotated("replay", _replay)
        self._annotated = None if annotated_replay is _replay else annotated_replay

    def replay(self, graph: int, batch: BatchDescriptor) -> Any:  # noqa: ANN401 - what was captured
        """Launch a graph for a batch that fits it, padded if it is smaller."""
        captured = self._graphs.captured[graph]
        captured_for = self._graphs.signatures[graph].batch
        pads = captured_for.num_tokens != batch.num_tokens
        if pads and self._fill_padding is not None:
            self._fill_padding(batch, captured_for)
        mark = self._records.mark
        if mark is not None:
            mark(_REPLAY_BEGIN)
        if self._annotated is None:
            captured.graph.replay()
        else:
            self._annotated(captured.graph)
        if mark is not None:
            mark(_REPLAY_END)
        if not pads or self._unpad is None:
            return captured.outputs
        return self._unpad(captured.outputs, batch, captured_for)

    def run_eagerly(self, verdict: Verdict, batch: BatchDescriptor) -> Any:  # noqa: ANN401
        """Run a step without a graph.

        Raises:
            GuardMismatch: If the guard has no eager function.
        """
        mark = self._records.mark
        if mark is None:
            return self._fallbacks.run_eagerly(verdict, batch)
        mark(_EAGER_BEGIN)
        result = self._fallbacks.run_eagerly(verdict, batch)
        mark(_EAGER_END)
        return result


def _replay(graph: Graph) -> None:
    graph.replay()
