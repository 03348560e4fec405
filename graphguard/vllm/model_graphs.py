"""What was captured of one model in a vLLM worker, and the check of a batch against it."""

from __future__ import annotations

from typing import Any

from graphguard.batch import BatchDescriptor
from graphguard.environment import Mode
from graphguard.log import logger
from graphguard.metrics import process_metrics
from graphguard.session import Session, process_rank
from graphguard.signature import GraphKey, Signature
from graphguard.table import SignatureTable
from graphguard.verdict import Action, Reason, Verdict


class ModelGraphs:
    """The graphs of one model.

    Args:
        role: ``target`` or ``drafter``.
        mode: How far the guard goes.
        session: Where signatures are kept for the manifest.

    Attributes:
        key: What its steps are published under.
        mode: How far the guard goes.
        enforces: Whether it acts on what it finds.
        signatures: What was recorded, by graph id.
        choices: What vLLM calls each graph, by graph id.
        quarantined: Graphs that no rank uses.
    """

    def __init__(self, role: str, mode: Mode, session: Session) -> None:
        self.key = GraphKey(role)
        self.mode = mode
        self.enforces = mode is Mode.ENFORCE
        self.signatures: list[Signature] = []
        self.choices: list[Any] = []
        self.quarantined: set[int] = set()
        self._session = session
        self._table = SignatureTable()
        self._requests_family = self._table.add_family(False)
        self._tokens_family = self._table.add_family(True)
        self._check_graph = self._table.check_graph
        self._eager = Verdict(Action.EAGER, Reason.NO_GRAPH)
        self._said: set[str] = set()
        self._replaced: list[int] = []
        metrics = process_metrics()
        if metrics is not None:
            metrics.watch(role, self._verdicts)

    def add(self, signature: Signature, choice: Any) -> int:  # noqa: ANN401 - vLLM's own
        """Take what was recorded of a graph, and return its id."""
        by_requests = signature.batch.num_reqs > 0
        family = self._requests_family if by_requests else self._tokens_family
        batch = signature.batch
        graph = self._table.insert(
            family, batch.num_reqs, batch.query_len, batch.num_tokens, batch.phase, []
        )
        self.signatures.append(signature)
        self.choices.append(choice)
        self._session.record(signature)
        self._record_capture(signature)
        return graph

    def replace(self, graph: int, signature: Signature) -> None:
        """Take what was recorded of a graph that was captured again; it is not sealed yet."""
        self._session.replace(self.signatures[graph], signature)
        self.signatures[graph] = signature
        self.quarantined.discard(graph)
        self._replaced.append(graph)
        self._record_capture(signature)

    def check(self, graph: int | None, batch: BatchDescriptor) -> Verdict:
        """Say whether the graph that vLLM has chosen fits a batch; None stands for no graph."""
        if graph is None:
            return self._eager
        return self._check_graph(
            graph, batch.num_reqs, batch.query_len, batch.num_tokens, batch.phase
        )

    def say_once(self, topic: str, message: str) -> None:
        """Log a warning, the first time for its topic."""
        if topic not in self._said:
            self._said.add(topic)
            logger().warning("%s; this is said once", message)

    def degraded(self, verdict: Verdict) -> None:
        """Count a step that does not use the graph that vLLM chose."""
        if (metrics := process_metrics()) is not None:
            metrics.degraded(self.key.role, verdict.reason)

    def misfit(self, verdict: Verdict, graph: int, batch: BatchDescriptor) -> str:
        """Say in words why the graph that vLLM has chosen does not fit."""
        rank, _ = process_rank()
        return (
            f"rank {rank}: vLLM chose {self.signatures[graph]} for {batch}: "
            f"{verdict.reason.explanation}"
        )

    def _verdicts(self) -> dict[Verdict, int]:
        return dict(self._table.counts())

    def _record_capture(self, signature: Signature) -> None:
        from graphguard.blackbox.events import Event
        from graphguard.blackbox.writer import process_box

        if (box := process_box()) is not None:
            box.record(
                Event.CAPTURE,
                role=str(signature.key),
                digest=int(signature.shared_digest[:16], 16),
                batch=signature.batch,
                detail=len(signature.collectives),
            )
