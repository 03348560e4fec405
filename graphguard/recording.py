"""Recording one capture: the recorders run, and what they saw becomes a signature."""

from __future__ import annotations

import sys
from collections.abc import Callable, Mapping
from contextlib import ExitStack
from types import TracebackType
from typing import TYPE_CHECKING, Any

from graphguard import graphs
from graphguard.batch import BatchDescriptor
from graphguard.breadcrumbs.process import wanted
from graphguard.errors import CaptureError, ConfigurationError
from graphguard.graphs.tensors import input_specs, output_specs
from graphguard.policy import parse_setting
from graphguard.recorders import own_captures
from graphguard.session import Session, default_session, process_rank
from graphguard.signature import GraphKey, GraphMode, Signature

if TYPE_CHECKING:
    from graphguard.recorders.duty import Duty
    from graphguard.table import SignatureTable


class Recording:
    """The record of one capture, made by entering it around the capture.

    Args:
        key: The family that the graph belongs to.
        batch: The descriptor it is captured for.
        keep: Called with the signature when the recording has ended.
        claims: Whether captures on this thread are nobody else's business meanwhile.
        capture_id: The capture, as the driver numbers it, if it is under way; 0 for the captures
            that are made on this thread.
    """

    def __init__(
        self,
        key: GraphKey,
        batch: BatchDescriptor,
        keep: Callable[[Signature], object] | None = None,
        *,
        claims: bool = True,
        capture_id: int = 0,
    ) -> None:
        self._claims = claims
        self._capture_id = capture_id
        self._key = key
        self._batch = batch
        self._keep = keep
        self._signature: Signature | None = None
        self._duty: Duty | None = None
        self._watch = ExitStack()
        self._graph: graphs.Graph | None = None
        self._inputs: Mapping[str, Any] = {}
        self._outputs: object = None

    @property
    def signature(self) -> Signature:
        """What was recorded.

        Raises:
            ConfigurationError: If the recording has not ended, or ended with an error.
        """
        if self._signature is None:
            raise ConfigurationError(
                f"the recording of {self._key} {self._batch} has no signature yet",
                hint="read it after the with block, and only if the block raised no error",
            )
        return self._signature

    def captured(
        self,
        graph: graphs.Graph,
        inputs: Mapping[str, Any] | None = None,
        outputs: object = None,
    ) -> None:
        """Say which graph was captured and which tensors are static.

        Args:
            graph: The captured graph.
            inputs: The tensors that the program fills between replays, by name.
            outputs: The tensors that the graph leaves its results in, in any nesting.
        """
        self._graph = graph
        self._inputs = inputs or {}
        self._outputs = outputs

    def __enter__(self) -> Recording:
        if self._claims:
            own_captures.claim()
        # Slow to import, and not needed by programs that record nothing.
        from graphguard.recorders.duty import Duty
        from graphguard.recorders.graph_nodes import watched_captures

        # Without torch there are no graphs of torch.
        if "torch" in sys.modules:
            self._watch.enter_context(watched_captures())

        self._duty = Duty(self._capture_id).__enter__()
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        if self._claims:
            own_captures.release()
        self._watch.close()
        if self._duty is None:
            return
        self._duty.__exit__(kind, error, traceback)
        if error is not None:
            return
        self._signature = self._sign(self._duty)
        if self._graph is not None and wanted():
            from graphguard.breadcrumbs.marking import describe

            describe(self._graph, self._signature)
        if self._keep is not None:
            self._keep(self._signature)

    def _sign(self, duty: Duty) -> Signature:
        failure = duty.failure
        if failure is not None:
            rank, _ = process_rank()
            raise CaptureError(
                f"rank {rank}: the collectives of {self._key} {self._batch} could not be "
                f"recorded: {failure}",
                hint="this is a fault of graphguard's recorder; run with GRAPHGUARD_MODE=off and "
                "report it with the operator that the cause names",
            ) from failure
        recorded = duty.merged(process_rank)
        inputs = input_specs(self._inputs)
        return Signature(
            key=self._key,
            batch=self._batch,
            tensors=inputs + output_specs(self._outputs),
            num_inputs=len(inputs),
            collectives=recorded.calls,
            graph_kind=graphs.kind_of(self._graph) if self._graph is not None else "",
            nodes=graphs.nodes_of(self._graph) if self._graph is not None else "",
            graph_nodes=graphs.graph_nodes_of(self._graph) if self._graph is not None else (),
            disagreements=recorded.disagreements,
        )


def record(
    role: str,
    batch: BatchDescriptor,
    *,
    graph_mode: GraphMode | str = GraphMode.FULL,
    variant: str = "",
    table: SignatureTable | None = None,
    session: Session = default_session,
) -> Recording:
    """Record a capture that you make by hand.

    Example:
        >>> with graphguard.record("target", batch, table=table) as recording:
        ...     with torch.cuda.graph(graph):
        ...         out = model(tokens)
        ...     recording.captured(graph, inputs={"tokens": tokens}, outputs=out)

    Args:
        role: ``target``, ``drafter``, or a name of your own.
        batch: The descriptor that the graph is captured for.
        graph_mode: ``full`` or ``piecewise``.
        variant: What else tells families of graphs apart.
        table: Where the signature is inserted, to be checked against later. The ids of its
            graphs count up in the order of insertion.
        session: Where the signature is kept for the manifest.

    Raises:
        ConfigurationError: If there is no such ``graph_mode``.
        CaptureError: On leaving the block, if the capture could not be recorded.
    """

    def keep(signature: Signature) -> None:
        session.record(signature)
        if table is not None:
            table.add(signature)

    key = GraphKey(role, parse_setting(GraphMode, graph_mode, "graph_mode"), variant)
    return Recording(key, batch, keep)
