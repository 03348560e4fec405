"""The captures that a guard makes after warm-up: what of, how many, and which failed."""

from __future__ import annotations

from graphguard.batch import BatchDescriptor
from graphguard.errors import GraphguardError
from graphguard.graph_set import GraphSet
from graphguard.policy import Policy
from graphguard.signature import GraphMode
from graphguard.verdict import Verdict


class Recaptures:
    """Captures after warm-up, within the limits of a policy.

    Args:
        graphs: Where captured graphs go.
        policy: Where the limits come from.
    """

    def __init__(self, graphs: GraphSet, policy: Policy) -> None:
        self._graphs = graphs
        self._policy = policy
        self._together = 0
        self._alone = 0
        self._warm_up_bytes = 0
        self._failed: dict[BatchDescriptor, GraphguardError] = {}

    def exclude_bytes(self, nbytes: int) -> None:
        """Leave out of the limit what a warm-up has reserved."""
        self._warm_up_bytes += nbytes

    def raise_if_failed(self, verdict: Verdict, batch: BatchDescriptor) -> None:
        """Raise the error of an earlier capture of the same graph.

        No limit comes before it: other ranks may have succeeded and replay the graph now.
        """
        error = self._failed.get(self._wanted(verdict, batch))
        if error is not None:
            raise error.with_traceback(None)

    def over_count(self, verdict: Verdict) -> str | None:
        """Say that there have been too many, if there have."""
        # What a rank captured alone must not change what it does together with the others.
        captured = self._together + (self._alone if verdict.reason.rank_local else 0)
        if captured < self._policy.max_recaptures:
            return None
        return f"{captured} graphs have been captured since warm-up"

    def over_memory(self) -> str | None:
        """Say that they have reserved too much memory, if they have."""
        limit = self._policy.max_recapture_bytes
        reserved = self._graphs.reserved_bytes - self._warm_up_bytes
        if limit is None or reserved < limit:
            return None
        return f"captures since warm-up have reserved {reserved:,} bytes"

    def capture(self, verdict: Verdict, batch: BatchDescriptor) -> int:
        """Capture what a verdict asks for and return the id of the graph.

        Raises:
            CaptureError: If it could not be captured or recorded.
        """
        wanted = self._wanted(verdict, batch)
        try:
            if verdict.graph is None:
                self._together += 1
                return self._graphs.add(wanted)
            self._alone += 1
            self._graphs.capture_again(verdict.graph)
        except GraphguardError as error:
            self._failed[wanted] = error
            raise
        return verdict.graph

    def _wanted(self, verdict: Verdict, batch: BatchDescriptor) -> BatchDescriptor:
        if verdict.graph is not None:
            return self._graphs.signatures[verdict.graph].batch
        piecewise = self._graphs.key.mode is GraphMode.PIECEWISE
        return BatchDescriptor.tokens(batch.num_tokens) if piecewise else batch
