"""The captures that a guard makes after warm-up: what of, how many, and which failed."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence

from graphguard.batch import BatchDescriptor
from graphguard.errors import CaptureError, GraphguardError
from graphguard.graph_set import Captured, GraphSet
from graphguard.policy import Policy
from graphguard.signature import GraphMode, Signature
from graphguard.verdict import Verdict

Agree = Callable[[Sequence[Signature], str], Mapping[int, str]]
"""Compares a capture with the other ranks'; returns on which ranks it failed, and why."""


class Recaptures:
    """Captures after warm-up, within the limits of a policy.

    Args:
        graphs: Where captured graphs go.
        policy: Where the limits come from.
    """

    def __init__(self, graphs: GraphSet, policy: Policy) -> None:
        self._graphs = graphs
        self._policy = policy
        self._agree: Agree | None = None
        self._closed = False
        self._together = 0
        self._alone = 0
        self._warm_up_bytes = 0
        self._failed: dict[BatchDescriptor, GraphguardError] = {}

    def agree_by(self, agree: Agree) -> None:
        """Take a graph from now on only if every rank of the group has captured it."""
        self._agree = agree

    def close(self) -> None:
        """Make no more captures: a rank of the group has no memory left for them."""
        self._closed = True

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

    def ruled_out(self, verdict: Verdict, batch: BatchDescriptor) -> str | None:
        """Say why no rank of the group may capture what a verdict asks for, if none may."""
        if self._closed:
            return "no more captures may be made on some rank"
        if self._wanted(verdict, batch) in self._failed:
            return "capturing it has failed on some rank"
        return self.over_count(verdict)

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
            CaptureError: If it could not be captured or recorded, or not on every rank.
            AgreementError: If ranks captured different things.
        """
        wanted = self._wanted(verdict, batch)
        if wanted in self._graphs.by_batch and verdict.graph is None:
            return self._graphs.by_batch[wanted]
        try:
            if verdict.graph is None:
                self._together += 1
                return self._graphs.insert(*self._made(wanted))
            self._alone += 1
            self._graphs.replace(verdict.graph, *self._made(wanted))
        except GraphguardError as error:
            self._failed[wanted] = error
            raise
        return verdict.graph

    def _made(self, wanted: BatchDescriptor) -> tuple[Captured, Signature]:
        if self._agree is None:
            return self._graphs.make(wanted)
        made: tuple[Captured, Signature] | None = None
        failure: GraphguardError | None = None
        try:
            made = self._graphs.make(wanted)
        except GraphguardError as error:
            failure = error
        failures = self._agree([made[1]] if made else [], str(failure or ""))
        if made is not None and not failures:
            return made
        if made is not None:
            made[0].graph.reset()
        rank, text = next(iter(failures.items()))
        raise CaptureError(
            f"{self._graphs.key} {wanted} is not captured: rank {rank} of the group failed: {text}",
            hint="no rank uses the graph; look at the cause on that rank",
        ) from failure

    def _wanted(self, verdict: Verdict, batch: BatchDescriptor) -> BatchDescriptor:
        if verdict.graph is not None:
            return self._graphs.signatures[verdict.graph].batch
        piecewise = self._graphs.key.mode is GraphMode.PIECEWISE
        return BatchDescriptor.tokens(batch.num_tokens) if piecewise else batch
