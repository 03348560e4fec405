"""What a guard writes into the black box."""

from __future__ import annotations

import itertools
from collections.abc import Callable
from typing import TYPE_CHECKING

from graphguard.batch import BatchDescriptor
from graphguard.environment import Mode
from graphguard.graph_set import GraphSet
from graphguard.verdict import Verdict

if TYPE_CHECKING:
    from graphguard._core import BlackBox as Ring
    from graphguard.blackbox.writer import BlackBox

steps_alone = itertools.count(1)
"""Numbers the steps of this process that belong to no group."""


class StepRecords:
    """The records of one guard.

    Args:
        graphs: Its graphs.
        mode: Its mode; in ``off`` nothing is recorded.

    Attributes:
        mark: Records that a launch begins or ends, by the number of the event; None where there is
            no black box.
    """

    def __init__(self, graphs: GraphSet, mode: Mode) -> None:
        self.mark: Callable[[int], None] | None = None
        self._graphs = graphs
        self._mode = mode
        self._box: BlackBox | None = None
        self._ring: Ring | None = None
        self._role = 0
        self._flags = 0

    def open(self) -> BlackBox | None:
        """Open the black box of the process if it is not open, and return it."""
        if self._box is None and self._mode is not Mode.OFF:
            from graphguard.blackbox.events import Flag
            from graphguard.blackbox.writer import process_box

            self._box = process_box()
            if self._box is not None:
                self._role = self._box.name(self._graphs.key.label)
                self._flags = int(Flag.ENFORCE if self._mode is Mode.ENFORCE else 0)
                self.write_as(self._box.ring.another())
                from graphguard.watch import watchdog

                watchdog.start()
        return self._box

    def write_as(self, ring: Ring | None) -> None:
        """Take the writer that remembers the checks of this guard."""
        self._ring = ring
        self.mark = None if ring is None else ring.mark

    def check(self, verdict: Verdict, batch: BatchDescriptor) -> None:
        """Record the check of a step that belongs to no group."""
        ring = self._ring
        if ring is None:
            return
        graph = verdict.graph
        ring.check(
            self._role,
            NO_GROUP,
            next(steps_alone),
            0 if graph is None else self._graphs.digests[graph],
            batch.num_reqs,
            batch.query_len,
            batch.num_tokens,
            batch.phase,
            verdict.action,
            verdict.reason,
            self._flags,
        )

    def captured(self, graphs: GraphSet, graph: int) -> None:
        """Record that a graph was captured."""
        box = self.open()
        if box is None:
            return
        from graphguard.blackbox.events import Event

        signature = graphs.signatures[graph]
        box.record(
            Event.CAPTURE,
            role=graphs.key.label,
            digest=graphs.digests[graph],
            batch=signature.batch,
            detail=len(signature.collectives),
        )


NO_GROUP = 0xFFFF
"""``NO_NAME`` of :mod:`graphguard.blackbox.events`, which is not loaded with every guard."""
