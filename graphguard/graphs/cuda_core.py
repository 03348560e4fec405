"""CUDA graphs of cuda-core, recorded by an explicit call.

The classes of cuda-core can be neither changed nor replaced, and its streams are not those that
another library captures. So a program says where it builds a graph:

    with graphguard.graphs.cuda_core.building(builder, "target", batch) as recording:
        launch(recording.builder, config, kernel, …)
    recording.graph.replay()

The surface is that of cuda-core 1.2; that it captures on a GPU has not been run.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

from graphguard.batch import BatchDescriptor
from graphguard.breadcrumbs.process import wanted
from graphguard.errors import CaptureError
from graphguard.graphs import contents
from graphguard.recording import record
from graphguard.session import Session, default_session
from graphguard.signature import GraphMode, Signature
from graphguard.table import SignatureTable

if TYPE_CHECKING:
    from graphguard.breadcrumbs.marking import Marks


class CudaCoreGraph:
    """A completed graph of cuda-core with the stream that it is launched on.

    Args:
        captured: What ``GraphBuilder.complete()`` returned.
        stream: The stream that ``replay`` launches it on.
        template: The handle of the ``CUgraph`` that it was made of, for as long as its builder
            lives; 0 where this cuda-core does not tell.

    Attributes:
        captured: The graph of cuda-core, or None after ``reset``.
    """

    def __init__(self, captured: Any, stream: Any, template: int = 0) -> None:  # noqa: ANN401
        self.captured = captured
        self.stream = stream
        self._template = template
        self._graphguard_marks: Marks | None = None

    def replay(self) -> None:
        """Launch the graph on its stream.

        Raises:
            CaptureError: If it was reset.
        """
        if self.captured is None:
            raise CaptureError(
                "a graph of cuda-core was launched after it was reset", hint="build it again"
            )
        marks = self._graphguard_marks
        if marks is None:
            self.captured.launch(self.stream)
        else:
            marks.launched(lambda: self.captured.launch(self.stream))

    def reset(self) -> None:
        """Close the graph."""
        captured, self.captured, self._template = self.captured, None, 0
        if self._graphguard_marks is not None:
            self._graphguard_marks.retire()
            self._graphguard_marks = None
        if captured is not None:
            captured.close()

    def raw_cuda_graph(self) -> int:
        """Return the handle of the ``CUgraph``, as torch calls it; 0 where it is not known."""
        return self._template


class Building:
    """A graph that is being built.

    Attributes:
        builder: The builder, which work is launched on.
        inputs: Set it to the tensors that the program fills between replays, by name.
        outputs: Set it to the tensors that the graph leaves its results in.
    """

    def __init__(self, builder: Any) -> None:  # noqa: ANN401
        self.builder = builder
        self.inputs: Mapping[str, Any] = {}
        self.outputs: object = None
        self._made: tuple[CudaCoreGraph, Signature] | None = None

    @property
    def graph(self) -> CudaCoreGraph:
        """The completed graph.

        Raises:
            CaptureError: Before the block has ended, or if it failed.
        """
        return self._ended()[0]

    @property
    def signature(self) -> Signature:
        """What was recorded.

        Raises:
            CaptureError: Before the block has ended, or if it failed.
        """
        return self._ended()[1]

    def _ended(self) -> tuple[CudaCoreGraph, Signature]:
        if self._made is None:
            raise CaptureError(
                "a graph of cuda-core is not complete yet",
                hint="read it after the with block, and only if the block raised no error",
            )
        return self._made


@contextmanager
def building(
    builder: Any,  # noqa: ANN401 - a cuda.core.graph.GraphBuilder
    role: str,
    batch: BatchDescriptor,
    *,
    stream: Any = None,  # noqa: ANN401 - a cuda.core.Stream
    build_mode: str = "relaxed",
    options: Any = None,  # noqa: ANN401 - a cuda.core.graph.GraphCompleteOptions
    graph_mode: GraphMode | str = GraphMode.FULL,
    variant: str = "",
    table: SignatureTable | None = None,
    session: Session = default_session,
) -> Iterator[Building]:
    """Build a graph with cuda-core, and record it.

    Args:
        builder: A builder that is not building yet, of ``stream.create_graph_builder()``.
        role: ``target``, ``drafter``, or a name of your own.
        batch: The descriptor that the graph is captured for.
        stream: What ``replay`` launches it on; without it the builder's stream.
        build_mode: What ``begin_building`` takes.
        options: What ``complete`` takes.
        graph_mode: ``full`` or ``piecewise``.
        variant: What else tells families of graphs apart.
        table: Where the signature is inserted, to be checked against later.
        session: Where the signature is kept for the manifest.

    Raises:
        CaptureError: On leaving the block, if the graph could not be recorded.
    """
    made = Building(builder)
    recording = record(
        role, batch, graph_mode=graph_mode, variant=variant, table=table, session=session
    )
    with recording:
        builder.begin_building(build_mode)
        try:
            yield made
        finally:
            builder.end_building()
        graph = CudaCoreGraph(None, stream or builder.stream, _template(builder))
        if wanted():
            _mark(graph)
        graph.captured = builder.complete(options)
        recording.captured(graph, made.inputs, made.outputs)
    made._made = (graph, recording.signature)


def _mark(graph: CudaCoreGraph) -> None:
    """Add marks to what was built, after looking at it: its nodes are told without them."""
    from graphguard.recorders import graph_marks

    template = graph.raw_cuda_graph()
    if not template:
        return
    try:
        found = contents.contents_of_handle(template)
        contents.keep(graph, found)
    except Exception as error:  # noqa: BLE001 - the program's capture goes first
        contents.tell(f"{type(error).__name__}: {error}")
        return
    graph_marks.prepare()
    graph_marks.mark(graph, template, found)


def _template(builder: Any) -> int:  # noqa: ANN401
    """Return the handle of what was captured; older versions do not tell."""
    definition = getattr(builder, "graph_definition", None)
    return int(getattr(definition, "handle", 0) or 0)
