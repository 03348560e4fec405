"""Recording every graph of a process, without a change to the program that captures them."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from graphguard import environment, program_libraries
from graphguard.batch import BatchDescriptor
from graphguard.environment import Mode
from graphguard.errors import ConfigurationError
from graphguard.log import logger
from graphguard.policy import parse_setting
from graphguard.session import Session, default_session, process_rank
from graphguard.signature import GraphKey, GraphMode, Signature
from graphguard.version import __version__

if TYPE_CHECKING:
    from graphguard.agreement.seal import SealOutcome
    from graphguard.program_graphs import GraphWatch, ProgramGraphs
    from graphguard.recorders.spine import Adapter


class Installation:
    """The recording of every graph of this process. Made by :func:`install`.

    Attributes:
        mode: ``observe`` or ``enforce``.
        adapters: What tells of graphs, one for each library that this process has imported.
    """

    def __init__(self, program: ProgramGraphs) -> None:
        self.mode = program.mode
        self.adapters: list[Adapter] = []
        self._program = program

    @property
    def signatures(self) -> tuple[Signature, ...]:
        """What was recorded, in the order of capture; graphs that are gone included."""
        return tuple(self._program.signatures)

    def signature_of(self, graph: object) -> Signature | None:
        """Return what was recorded of a graph, or None if it was not recorded here."""
        watch = self._watch(graph)
        return None if watch is None or watch.number is None else watch.signature

    def describe(
        self,
        graph: object,
        *,
        role: str | None = None,
        batch: BatchDescriptor | None = None,
        graph_mode: GraphMode | str = GraphMode.FULL,
        variant: str = "",
        inputs: Mapping[str, Any] | None = None,
        outputs: object = None,
    ) -> Signature:
        """Say what a captured graph is for, so that it is more than a number.

        Before each launch the inputs are then looked at: when enforcing, a graph is not launched
        whose static tensors have moved or changed.

        Args:
            graph: A graph that was captured since :func:`install`.
            role: ``target``, ``drafter``, or a name of your own.
            batch: The descriptor that it was captured for. Graphs of one role need different ones.
            graph_mode: ``full`` or ``piecewise``.
            variant: What else tells families of graphs apart.
            inputs: The tensors that the program fills between replays, by name.
            outputs: The tensors that the graph leaves its results in, in any nesting.

        Returns:
            Its new signature.

        Raises:
            ConfigurationError: If the graph was not recorded, or an input is no tensor.
        """
        import msgspec

        from graphguard.graphs.tensors import input_specs, output_specs

        watch = self._watch(graph)
        if watch is None or watch.number is None or watch.signature is None:
            raise ConfigurationError(
                f"this {type(graph).__name__} was not recorded by graphguard.install()",
                hint="install before the graph is captured; what guard() or record() record is "
                "described there",
            )
        known = watch.signature
        if role is not None:
            key = GraphKey(role, parse_setting(GraphMode, graph_mode, "graph_mode"), variant)
        else:
            key = known.key
        specs = input_specs(inputs or {})
        signature = msgspec.structs.replace(
            known,
            key=key,
            batch=batch or known.batch,
            tensors=specs + output_specs(outputs),
            num_inputs=len(specs),
        )
        watch.describe(signature, inputs or {})
        return signature

    def agree(self, group: Any) -> SealOutcome | None:  # noqa: ANN401 - what guard() takes
        """Compare what the ranks of a group captured; from then on, compare every launch.

        Every rank calls this at the same point, when its captures are done. From then on graphs
        are launched by one thread, and by all ranks in the same order.

        Args:
            group: A process group of torch.distributed whose ranks all have called
                :func:`install` with one mode, a function that returns one, or a
                :class:`graphguard.Agreement`.

        Returns:
            What was found, or None in observe if the ranks could not be compared.

        Raises:
            AgreementError: When enforcing, if captures differ or a rank does not come in time.
            LedgerError: When enforcing, if there can be no ledger.
        """
        return self._program.replays.agree(group)

    def uninstall(self) -> None:
        """Record nothing any more. What was recorded stays in the session."""
        self._program.active = False
        while self.adapters:
            self.adapters.pop().uninstall()

    def _watch(self, graph: object) -> GraphWatch | None:
        from graphguard.program_graphs import GraphWatch
        from graphguard.recorders.spine import attached

        attachment = attached(graph)
        watch = attachment.watch if attachment is not None else None
        return watch if isinstance(watch, GraphWatch) else None


_installed: Installation | None = None


def install(mode: Mode | str | None = None, session: Session = default_session) -> Installation:
    """Record every CUDA graph that torch captures in this process from now on.

    Nothing of the program changes: Inductor's graph trees, SGLang and vLLM are seen as they are.
    Graphs that a guard, :func:`graphguard.record` or the vLLM plugin records are left to them.
    Emulated graphs count like CUDA's. Streams of cupy are watched, too: ``end_capture`` returns a
    :class:`graphguard.graphs.cupy.CupyGraph` then. Called again with the same mode, it does
    nothing more.

    Args:
        mode: ``observe`` or ``enforce``; without it, what ``GRAPHGUARD_MODE`` says. In ``off``
            nothing is recorded.
        session: Where signatures are kept for the manifest.

    Raises:
        ConfigurationError: If neither torch nor cupy is installed, if torch is not what graphguard
            was written for, or if this was called before with another mode.
    """
    # Not needed to import graphguard.
    from importlib.util import find_spec

    if find_spec("torch") is not None:
        import torch  # noqa: F401 - so that an error of its adapter is raised here
    elif find_spec("cupy") is None:
        raise ConfigurationError(
            "there are no CUDA graphs to record: neither torch nor cupy is installed",
            hint="pip install torch, or use graphguard.record(...) for graphs of other libraries",
        )
    return _install(mode, session)


def _install(mode: Mode | str | None, session: Session) -> Installation:
    global _installed  # noqa: PLW0603 - one for each process, as the classes that are wrapped are
    wanted = environment.mode() if mode is None else environment.parse_mode(mode, "install()")
    if _installed is not None:
        if _installed.mode is not wanted:
            raise ConfigurationError(
                f"graphguard is installed with mode {_installed.mode}, and {wanted} is asked for",
                hint="call graphguard.uninstall() first",
            )
        return _installed
    from graphguard.program_graphs import ProgramGraphs

    program = ProgramGraphs(wanted, session)
    if wanted is Mode.OFF:
        program.active = False
        return Installation(program)
    session.mode = wanted
    installation = Installation(program)
    try:
        program_libraries.watch(program, installation.adapters)
    except BaseException:
        installation.uninstall()
        raise
    _installed = installation
    rank, _ = process_rank()
    logger().info(
        "graphguard %s, rank %d: every CUDA graph that torch or cupy captures is recorded from now "
        "on (mode %s); graphs that were captured before are not, nor those of other libraries",
        __version__,
        rank,
        wanted,
    )
    return installation


def uninstall() -> None:
    """Undo :func:`install`. Without one it does nothing."""
    global _installed
    installation, _installed = _installed, None
    if installation is not None:
        installation.uninstall()


def install_if_wanted() -> None:
    """Install once torch or cupy is imported, if ``GRAPHGUARD_INSTALL`` asks for it."""
    if environment.INSTALL.value is None:
        return
    try:
        if not environment.install_wanted():
            return
        from graphguard.importing import after_import

        for library in program_libraries.LIBRARIES:
            after_import(library, _install_quietly)
    except Exception as error:  # noqa: BLE001 - the program did not ask for anything itself
        logger().warning("graphguard is not installed: %s", error)


def _install_quietly() -> None:
    try:
        _install(None, default_session)
    except Exception as error:  # noqa: BLE001 - the program must start without us
        logger().warning("graphguard is not installed: %s", error)
