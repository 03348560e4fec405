"""The marks of captured graphs: added at the end of a capture, described when it is recorded."""

from __future__ import annotations

import weakref
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Any

from graphguard import _core
from graphguard.breadcrumbs import naming
from graphguard.breadcrumbs.process import Breadcrumbs, process_breadcrumbs
from graphguard.breadcrumbs.telling import tell
from graphguard.communication import Match, kernel_match

if TYPE_CHECKING:
    from graphguard.signature import CollectiveCall, Signature

KERNEL, MEMSET, MEMOP, HOST, EMULATED = range(5)
"""What counts marks up: the places of ``graphguard.watch.breadcrumbs.KINDS``."""

_ATTRIBUTE = "_graphguard_marks"


class Marks:
    """The marks of one captured graph.

    Attributes:
        native: What counts its launches: ``launch()`` before each, ``withdraw()`` if it failed.
        matches: For each mark, what its kernel is; empty where marks are not of kernels.
    """

    __slots__ = ("_finalizer", "launch", "matches", "native", "withdraw")

    def __init__(self, native: _core.GraphMarks, matches: tuple[Match | None, ...] = ()) -> None:
        self.native = native
        self.matches = matches
        # What is called for every launch, without a detour.
        self.launch = native.launch
        self.withdraw = native.withdraw
        self._finalizer: Any = None

    def keep_on(self, graph: Any) -> None:  # noqa: ANN401 - a graph of any library
        """Let a graph have these marks until it is reset or collected."""
        setattr(graph, _ATTRIBUTE, self)
        self._finalizer = weakref.finalize(graph, self.native.retire)
        # A process that ends has been in the middle of whatever its file says.
        self._finalizer.atexit = False

    def launched(self, launch: Callable[[], object]) -> None:
        """Launch the graph, and count it unless that fails."""
        self.launch()
        try:
            launch()
        except BaseException:
            self.withdraw()
            raise

    def describe(self, name: str, digest: int, calls: Sequence[CollectiveCall]) -> None:
        """Say what the graph is called, and which calls its marks are of if that is certain."""
        units = naming.unit_of_each_mark(calls, len(self.native), self.matches)
        self.native.describe(name, digest, [naming.unit_text(unit) for unit in units or ()])

    def retire(self) -> None:
        """The graph is launched no more."""
        if self._finalizer is not None:
            self._finalizer()


def marks_of(graph: object) -> Marks | None:
    """Return the marks of a graph, or None if it has none."""
    marks: Marks | None = getattr(graph, _ATTRIBUTE, None)
    return marks


def describe(graph: object, signature: Signature) -> None:
    """Say what a graph with marks is, now that it is recorded. Never raises."""
    describe_marks(marks_of(graph), signature)


def describe_marks(
    marks: Marks | None,
    signature: Signature,
    calls: Sequence[CollectiveCall] | None = None,
    place: str = "",
) -> None:
    """The same, of marks that are at hand.

    Args:
        marks: The marks.
        signature: Of the step that the graph is launched for.
        calls: What the graph calls, if that is not all that the step does.
        place: Which of the step's graphs it is.
    """
    if marks is None:
        return
    try:
        digest = int(signature.shared_digest[:16], 16)
        calls = signature.collectives if calls is None else calls
        marks.describe(f"{signature}{place}", digest, calls)
    except Exception as error:  # noqa: BLE001 - the program's capture goes first
        tell("describe", f"{type(error).__name__}: {error}")


def release(graph: object) -> None:
    """Let go of a graph's marks: it is reset, or captured again."""
    marks = marks_of(graph)
    if marks is not None:
        setattr(graph, _ATTRIBUTE, None)
        marks.retire()


def mark_emulated(graph: object, texts: Sequence[str]) -> Marks | None:
    """Take marks for the collectives of an emulated graph, which passes them itself. Never raises.

    Args:
        graph: The graph.
        texts: What each collective is, until the recorded calls say it better.
    """
    try:
        release(graph)
        crumbs = process_breadcrumbs() if texts else None
        native = None if crumbs is None else add(crumbs, texts, EMULATED)
        if native is None:
            return None
        marks = Marks(native)
        marks.keep_on(graph)
    except Exception as error:  # noqa: BLE001 - the program's capture goes first
        tell("emulated", f"{type(error).__name__}: {error}")
        return None
    return marks


def add(
    crumbs: Breadcrumbs, texts: Sequence[str], kind: int, missing: int = 0
) -> _core.GraphMarks | None:
    """Take a place for a graph; None if there is no room, which is said once."""
    native = crumbs.native.add(texts, kind, missing)
    if native is None:
        tell("room", f"{crumbs.path} has no room for the marks of another graph")
    return native


class CudaMarker:
    """Adds marks to graphs of the CUDA driver while they are captured.

    Args:
        crumbs: Where the marks are.
        library: The file of a driver to ask, for tests; empty for the one of this process.
    """

    def __init__(self, crumbs: Breadcrumbs, library: str = "") -> None:
        self._crumbs = crumbs
        self._native = _core.GraphMarker(crumbs.native, library)

    def prepare(self) -> bool:
        """Do what is needed once in a context, on a thread that captures; say if it is done."""
        problem = self._native.prepare()
        if problem:
            tell("prepare", problem)
        return not problem

    def mark(self, graph: Any, handle: int, communicating: int | None, kind: int = KERNEL) -> None:  # noqa: ANN401
        """Add a mark behind each communication kernel of a graph.

        Args:
            graph: The graph as its library has it, which the marks are kept on.
            handle: Its ``CUgraph``, which the calling thread captures into or has just captured.
            communicating: How many communication kernels it has, those of graphs in it included;
                None where nobody has looked.
            kind: What counts the marks up.
        """
        release(graph)
        names, kernels, error = self._native.kernels(handle)
        if error:
            tell("kernels", error)
            return
        by_name = [kernel_match(name) for name in names]
        found = [(node, name) for node, name in kernels if by_name[name] is not None]
        if not found or not self.prepare():
            return
        missing = max(0, (communicating or 0) - len(found))
        native = add(self._crumbs, [names[name] for _, name in found], kind, missing)
        if native is None:
            return
        problem = self._native.mark(handle, [node for node, _ in found], native, kind)
        if problem:
            # Some nodes may be there already, and count on in every replay.
            native.abandon()
            tell("mark", problem)
            return
        Marks(native, tuple(by_name[name] for _, name in found)).keep_on(graph)
