"""The graphs of one guard: captured, recorded, and found again by their descriptor."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

import msgspec

from graphguard import graphs
from graphguard.batch import BatchDescriptor
from graphguard.environment import Mode
from graphguard.errors import CaptureError, GraphguardError
from graphguard.log import logger
from graphguard.nvtx_ranges import annotated
from graphguard.recording import Recording
from graphguard.session import Session, process_rank
from graphguard.signature import GraphKey, Signature
from graphguard.table import SignatureTable


class Captured(msgspec.Struct, frozen=True):
    """What a capture function returns.

    Attributes:
        graph: The captured graph: a ``torch.cuda.CUDAGraph``, an emulated graph, or any object
            with ``replay()`` and ``reset()``.
        inputs: The tensors that the program fills between replays, by name.
        outputs: The tensors that the graph leaves its results in, in any nesting.
    """

    graph: graphs.Graph
    inputs: Mapping[str, Any] = {}
    outputs: Any = None


CaptureFunction = Callable[[BatchDescriptor], Captured]


class GraphSet:
    """The captured graphs under one key. A graph's id is its position and its id in the table.

    Attributes:
        key: The family that the graphs belong to.
        table: The signature table that the graphs are checked against.
        captured: What the capture function returned, by graph id.
        signatures: What was recorded, by graph id.
        by_batch: Graph ids by the descriptor that they were captured for.
        digests: The first 64 bits of the shared digests, by graph id.
        reserved_bytes: Device memory that captures have reserved so far.
    """

    def __init__(
        self, key: GraphKey, capture: CaptureFunction, mode: Mode, session: Session
    ) -> None:
        self.key = key
        self.table = SignatureTable()
        self.captured: list[Captured] = []
        self.signatures: list[Signature] = []
        self.by_batch: dict[BatchDescriptor, int] = {}
        self.digests: list[int] = []
        self.reserved_bytes = 0
        self._capture = annotated("capture", capture)
        self._mode = mode
        self._enforces = mode is Mode.ENFORCE
        self._session = session

    @property
    def batches(self) -> tuple[BatchDescriptor, ...]:
        """The descriptors that graphs were captured for, in the order of capture."""
        return tuple(self.by_batch)

    @property
    def communicates(self) -> bool:
        """Whether any recorded graph holds a collective of more than one rank."""
        return any(call.group_size > 1 for s in self.signatures for call in s.collectives)

    def add(self, batch: BatchDescriptor) -> int:
        """Capture the graph for a descriptor and return its id; an existing one is kept.

        Raises:
            CaptureError: When enforcing, if it could not be captured or recorded. Otherwise errors
                of the capture function come as they are.
        """
        if batch in self.by_batch:
            return self.by_batch[batch]
        return self.insert(*self.make(batch))

    def insert(self, captured: Captured, signature: Signature) -> int:
        """Take a graph that was made, and return its id."""
        graph = self._insert(signature)
        self.captured.append(captured)
        self.signatures.append(signature)
        self.digests.append(int(signature.shared_digest[:16], 16))
        self.by_batch[signature.batch] = graph
        if self._mode is not Mode.OFF:
            self._session.record(signature)
        return graph

    def capture_again(self, graph: int) -> None:
        """Capture a graph again in its place, because its static tensors have changed.

        Raises:
            CaptureError: If it could not be captured or, when enforcing, recorded.
        """
        self.replace(graph, *self.make(self.signatures[graph].batch))

    def replace(self, graph: int, captured: Captured, signature: Signature) -> None:
        """Take a graph that was made in the place of an older one."""
        old_captured, old_signature = self.captured[graph], self.signatures[graph]
        # First what may be refused, last what cannot be undone.
        self.table.replace(graph, signature)
        self.captured[graph] = captured
        self.signatures[graph] = signature
        self.digests[graph] = int(signature.shared_digest[:16], 16)
        self._session.replace(old_signature, signature)
        if old_captured.graph is not captured.graph:
            old_captured.graph.reset()

    def make(self, batch: BatchDescriptor) -> tuple[Captured, Signature]:
        """Capture and record a graph without taking it.

        Raises:
            CaptureError: When enforcing, if it could not be captured or recorded. Otherwise errors
                of the capture function come as they are.
        """
        if self._mode is Mode.OFF:
            return self._call(batch), Signature(self.key, batch)
        recording = Recording(self.key, batch)
        captured: Captured | None = None
        reserved = self.reserved_bytes
        try:
            with recording:
                captured = self._call(batch)
                recording.captured(captured.graph, captured.inputs, captured.outputs)
        except Exception as error:
            if captured is None or (isinstance(error, GraphguardError) and self._enforces):
                raise
            if self._enforces:
                raise CaptureError(
                    f"{self.key} {batch} could not be recorded: {type(error).__name__}: {error}",
                    hint="this is a fault of graphguard; run with GRAPHGUARD_MODE=observe and "
                    "report it",
                ) from error
            # The capture itself went well: in observe the program must not notice the rest.
            logger().warning("%s %s is not recorded: %s", self.key, batch, error)
            return captured, Signature(self.key, batch)
        reserved = self.reserved_bytes - reserved
        return captured, msgspec.structs.replace(recording.signature, memory_bytes=reserved)

    def _insert(self, signature: Signature) -> int:
        try:
            return self.table.add(signature)
        except Exception as error:
            if self._enforces:
                raise
            logger().warning("the inputs of %s will not be checked: %s", signature, error)
            return self.table.add(Signature(signature.key, signature.batch))

    def _call(self, batch: BatchDescriptor) -> Captured:
        rank, _ = process_rank()
        try:
            with graphs.measured_memory(self._reserved):
                captured = self._capture(batch)
        except Exception as error:
            # A program may have an answer to its own errors (fewer sizes when memory runs out):
            # where it is only observed, it sees them as they are.
            if isinstance(error, GraphguardError) or not self._enforces:
                raise
            raise CaptureError(
                f"rank {rank}: capturing {self.key} {batch} failed: {error}",
                hint="the cause is in the capture function; run it eagerly for this batch first",
            ) from error
        if not isinstance(captured, Captured):
            raise CaptureError(
                f"rank {rank}: the capture function of {self.key} returned a "
                f"{type(captured).__name__} for {batch}",
                hint="return graphguard.Captured(graph, inputs={...}, outputs=...)",
            )
        logger().info("captured %s %s on rank %d", self.key, batch, rank)
        return captured

    def _reserved(self, nbytes: int) -> None:
        self.reserved_bytes += nbytes
