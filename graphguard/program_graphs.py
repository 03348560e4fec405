"""Every graph that a program captures, recorded without its help.

What a graph is for is not known here, so it is named by its order: the memory pool that it was
captured into, and its place among the graphs of that pool, both counted from 0. Ranks that capture
the same in the same order come to the same names.
"""

from __future__ import annotations

import threading
from collections import Counter
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

import msgspec

from graphguard import graphs
from graphguard.batch import BatchDescriptor
from graphguard.breadcrumbs.process import wanted
from graphguard.environment import Mode
from graphguard.errors import CaptureError
from graphguard.log import logger
from graphguard.program_manifest import ProgramManifest
from graphguard.program_replays import Replays
from graphguard.recorders import own_captures
from graphguard.recorders.spine import Watch
from graphguard.recording import Recording
from graphguard.session import Session, process_rank
from graphguard.signature import GraphKey, Signature

if TYPE_CHECKING:
    from graphguard.breadcrumbs.marking import Marks

ROLE = "graph"
"""The role of graphs of which nothing is known."""

MAX_GRAPHS = 10_000
"""Graphs that are recorded in one process. A program that makes more throws most of them away."""

_UNKNOWN_BATCH = BatchDescriptor.tokens(0)


class ProgramGraphs:
    """The graphs of this process, as the spine tells of them.

    Args:
        mode: ``observe`` or ``enforce``.
        session: Where signatures are kept.

    Attributes:
        key: What ranks call all graphs together.
        signatures: What was recorded, by the number of the graph. A graph that is gone stays: the
            record is of what the process has captured.
        replays: What happens around a launch.
        active: Whether anything is recorded still.
    """

    def __init__(self, mode: Mode, session: Session) -> None:
        self.key = GraphKey(ROLE)
        self.signatures: list[Signature] = []
        self.active = True
        self.mode = mode
        self.session = session
        self.manifest = ProgramManifest(session)
        self.replays = Replays(self)
        self._lock = threading.RLock()
        self._pools: dict[Any, int] = {}
        self._in_pool: Counter[int] = Counter()
        self._open = threading.local()
        self._said: set[str] = set()

    def capture_begins(self, before: Watch | None) -> GraphWatch | None:
        """Begin to record a capture, unless somebody else records it. See the spine's listener."""
        try:
            stale: GraphWatch | None = getattr(self._open, "watch", None)
            if stale is not None:
                # Its end was never told: CUDA has given up on it, or captures are nested.
                stale.failed()
            full = len(self.signatures) >= MAX_GRAPHS and not isinstance(before, GraphWatch)
            if not self.active or own_captures.claimed() or full:
                if full:
                    self.say_once("full", f"only the first {MAX_GRAPHS} graphs are recorded")
                return None
            watch = GraphWatch(self, before if isinstance(before, GraphWatch) else None)
            self._open.watch = watch
        except Exception as error:  # noqa: BLE001 - the program's capture goes on
            self.say_once("begin", f"a capture is not recorded: {error!r}")
            return None
        return watch

    def closed(self, watch: GraphWatch) -> None:
        """Note that the recording of a capture is over on this thread."""
        if getattr(self._open, "watch", None) is watch:
            self._open.watch = None

    def keep(self, watch: GraphWatch, signature: Signature, pool: Any) -> Signature:  # noqa: ANN401
        """Number a graph and keep its signature, named by its order; return it."""
        with self._lock:
            if watch.number is not None:
                old = self.signatures[watch.number]
                signature = msgspec.structs.replace(signature, key=old.key, batch=old.batch)
                self._replace(watch.number, signature)
                return signature
            place = self._pools.setdefault(pool, len(self._pools))
            variant = f"pool{place}.{self._in_pool[place]}"
            self._in_pool[place] += 1
            signature = msgspec.structs.replace(signature, key=GraphKey(ROLE, variant=variant))
            watch.number = len(self.signatures)
            self.signatures.append(signature)
            self.session.record(signature)
            self.manifest.changed()
            self.replays.added()
        return signature

    def describe(self, watch: GraphWatch, signature: Signature) -> None:
        """Keep what the program has said of a graph."""
        with self._lock:
            assert watch.number is not None  # noqa: S101 - it was captured
            self._replace(watch.number, signature)
            watch.signature = signature

    def _replace(self, number: int, signature: Signature) -> None:
        self.session.replace(self.signatures[number], signature)
        self.signatures[number] = signature
        self.manifest.changed()
        self.replays.changed(number)

    def say_once(self, topic: str, message: str) -> None:
        """Log a warning, the first time for its topic."""
        if topic not in self._said:
            self._said.add(topic)
            logger().warning("%s; this is said once", message)


class GraphWatch:
    """One captured graph, for as long as it lives; see the spine's ``Watch``.

    Args:
        program: The graphs of the process.
        before: The same graph as it was captured before, whose name it keeps.

    Attributes:
        number: The place of its signature, or None before the capture has ended.
        signature: What was recorded, or None.
        failure: Why it could not be recorded, or None.
        inputs: The static tensors that the program has named.
        replay: What this graph keeps for its launches.
        alive: Whether the graph can be launched still.
    """

    def __init__(self, program: ProgramGraphs, before: GraphWatch | None) -> None:
        self.number: int | None = None if before is None else before.number
        self.signature: Signature | None = None
        self.failure: CaptureError | None = None
        self.alive = False
        self.replay = program.replays.of_graph(self)
        # What torch calls for every launch, without a detour.
        self.replay_begins = self.replay.begins
        self.replay_ended = self.replay.ended
        self._program = program
        self._pool: Any = None
        self._reserved = 0
        self._memory = graphs.measured_memory(self._measured)
        self._recording: Recording | None = None
        self._marks: Marks | None = None
        self._thread = threading.get_ident()

    def capturing(self, graph: Any) -> None:  # noqa: ANN401 - a graph of any library
        """Begin to record, now that the capture has a number by which recorders in C++ know it."""
        try:
            # The graphs of a library that does not tell are taken for those of one pool.
            self._pool = graph.pool() if hasattr(graph, "pool") else type(graph).__qualname__
            self._memory.__enter__()
            self._recording = Recording(
                self._program.key,
                _UNKNOWN_BATCH,
                claims=False,
                capture_id=graphs.capture_id_of(graph),
            )
            self._recording.__enter__()
        except Exception as error:  # noqa: BLE001 - the program's capture goes on
            self._not_recorded(error)

    def captured(self, graph: Any) -> None:  # noqa: ANN401
        """Keep the signature."""
        self.alive = True
        recording = self._close()
        if recording is None:
            if self.failure is None:
                self._not_recorded(CaptureError("another capture began on this thread meanwhile"))
            return
        try:
            recording.captured(graph)
            recording.__exit__(None, None, None)
            signature = msgspec.structs.replace(recording.signature, memory_bytes=self._reserved)
            self.signature = self._program.keep(self, signature, self._pool)
            self._describe_marks(graph)
            self.replay.captured(self.signature)
        except Exception as error:  # noqa: BLE001 - when enforcing, its launch is refused
            self._not_recorded(error)

    def failed(self) -> None:
        """Forget a capture that came to nothing."""
        recording = self._close()
        if recording is None:
            return
        try:
            given_up = CaptureError("the capture was given up")
            recording.__exit__(CaptureError, given_up, None)
        except Exception as error:  # noqa: BLE001 - the program has an error of its own
            self._program.say_once("failed", f"a recorder could not be ended: {error!r}")

    def gone(self) -> None:
        """Note that the graph cannot be launched any more."""
        self.failed()
        self.alive = False

    def describe(self, signature: Signature, inputs: Mapping[str, Any]) -> None:
        """Take what the program says of the graph."""
        self._program.describe(self, signature)
        if self._marks is not None:
            self._describe_marks()
        self.replay.captured(signature)
        self.replay.watch_inputs(signature, inputs)

    def _describe_marks(self, graph: object = None) -> None:
        """Say what the graph is by the name that it has got."""
        if not wanted() or self.signature is None:
            return
        from graphguard.breadcrumbs import marking

        self._marks = self._marks if graph is None else marking.marks_of(graph)
        marking.describe_marks(self._marks, self.signature)

    def _measured(self, nbytes: int) -> None:
        self._reserved = nbytes

    def _close(self) -> Recording | None:
        """Return the recording if it is still on, which it is once."""
        self._program.closed(self)
        recording, self._recording = self._recording, None
        if recording is None:
            return None
        self._memory.__exit__(None, None, None)
        if threading.get_ident() == self._thread:
            return recording
        self._not_recorded(
            CaptureError(
                "its capture ended on another thread than it began",
                hint="begin and end a capture on one thread",
            )
        )
        return None

    def _not_recorded(self, error: Exception) -> None:
        rank, _ = process_rank()
        self.failure = CaptureError(
            f"rank {rank}: a CUDA graph could not be recorded: {error}",
            hint="run with GRAPHGUARD_MODE=observe to launch it all the same, and report this",
        )
        self.failure.__cause__ = error
        self._program.say_once("record", f"a graph is not recorded: {error}")
