"""The guard of one vLLM worker: its models, and the ranks that it agrees with."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Protocol

from graphguard import environment
from graphguard.audit.findings import ranks_text
from graphguard.environment import Mode
from graphguard.errors import CaptureError
from graphguard.log import logger
from graphguard.session import Session, default_session, process_rank
from graphguard.version import __version__
from graphguard.vllm import armed, capturing, groups
from graphguard.vllm.model_guard import ModelGuard
from graphguard.vllm.options import Options

if TYPE_CHECKING:
    from collections.abc import Callable

    from graphguard.agreement.group import Agreement
    from graphguard.blackbox.writer import BlackBox
    from graphguard.vllm.data_parallel import DataParallelSteps
    from graphguard.vllm.startup import StartupFinding

    TakeCaptures = Callable[[Any, "WorkerGuard"], None]
    MakeSteps = Callable[[str, Options, Session], "Steps"]


class Steps(Protocol):
    """The steps of one model, on whichever generation of the runner."""

    @property
    def guard(self) -> ModelGuard:
        """The guard of the model."""


class WorkerGuard:
    """What graphguard keeps in a worker. There is one in a process; it belongs to one thread.

    Attributes:
        options: What the environment asks for.
        sealed: Whether the graphs of all ranks were compared; before that nothing is checked.
        started: Whether they were at least once.
        in_step: Whether a step of the scheduler runs, and no dummy run.
        first_pass: In a proposer, whether its first pass is to come; None outside of it.
        drafted: Whether the drafter has run in the step.
        batch: What the target ran last, as the hooks of its generation keep it.
        target: The steps of the target, or None before there are graphs.
        drafter: The steps of the drafter, or None.
        data_parallel: The launches that data-parallel ranks make together, or None.
        findings: What the audit at start-up found of the engine.
    """

    def __init__(self, options: Options, session: Session = default_session) -> None:
        self.options = options
        self.sealed = False
        self.started = False
        self.in_step = False
        self.first_pass: bool | None = None
        self.drafted = False
        self.batch: Any = None
        # The hooks of a generation know what it has.
        self.target: Any = None
        self.drafter: Any = None
        self.data_parallel: DataParallelSteps | None = None
        self.findings: list[StartupFinding] = []
        self._alone = ""
        self._session = session
        self._take: dict[TakeCaptures, str] = {}
        self._refusal: Exception | None = None

    def cover(self, take: TakeCaptures, runners: str = "") -> None:
        """Let a part of the plugin take its captures before ranks are compared.

        Args:
            take: Takes them from a runner.
            runners: The module of vLLM whose runners have them, if not all do: a process may load
                both generations, and has a runner of one.
        """
        self._take[take] = runners

    def steps(self, role: str, make: MakeSteps | None = None) -> Any:  # noqa: ANN401 - see target
        """Return the steps of a role, made if they are new: those of V1 where not told how."""
        steps: Steps | None = getattr(self, role)
        if steps is None:
            steps = (make or _steps_v1)(role, self.options, self._session)
            setattr(self, role, steps)
        return steps

    def captured(self, runner: Any) -> None:  # noqa: ANN401 - vLLM's own
        """Note that a runner has captured graphs, which the ranks have to compare."""
        del runner
        self.sealed = False

    def seal(self, runner: Any, *, everywhere: bool = False) -> None:  # noqa: ANN401 - vLLM's own
        """Compare with all ranks what was captured; from then on every step is checked.

        Args:
            runner: VLLM's runner.
            everywhere: Whether data-parallel ranks do so, too. In a step they do not: a rank that
                has no requests would not come.

        Raises:
            AgreementError: When enforcing, if captures differ or a rank does not come in time.
            CaptureError: When enforcing, if a capture could not be recorded.
            LedgerError: When enforcing, if there can be no ledger.
        """
        if self._refusal is not None:
            raise self._refusal.with_traceback(None)
        self.sealed = self.started = True
        try:
            self._seal(runner, everywhere=everywhere)
        except Exception as error:
            if self.options.mode is Mode.ENFORCE:
                self.sealed, self._refusal = False, error
                raise
            logger().warning("vLLM's steps are not checked: %s", error)
            self.target = self.drafter = self.data_parallel = None

    @property
    def models(self) -> list[Steps]:
        """The models that have steps, the target first."""
        return [steps for steps in (self.target, self.drafter) if steps is not None]

    def _seal(self, runner: Any, *, everywhere: bool) -> None:  # noqa: ANN401 - vLLM's own
        from graphguard.blackbox.writer import process_box

        if (failures := capturing.failures()) and self.options.mode is Mode.ENFORCE:
            raise CaptureError(
                f"rank {process_rank()[0]}: {len(failures)} captures could not be recorded; the "
                f"first: {failures[0]}",
                hint="this is a fault of graphguard; run with GRAPHGUARD_MODE=observe and report "
                "it",
            )
        modules = {generation.__module__ for generation in type(runner).__mro__}
        for take, runners in self._take.items():
            if not runners or runners in modules:
                take(runner, self)
        self._audit(runner)
        box = process_box()
        for steps in self.models:
            role = steps.guard.key.role
            steps.guard.seal(groups.agreements(self.options.mode, role), box)
        if everywhere or self.data_parallel is None:
            self._seal_data_parallel(runner, box, everywhere=everywhere)
        self._session.mode = self.options.mode
        if environment.directory() is not None:
            logger().info("manifest written to %s", self._session.write_manifest())
        logger().info("%s", self.line())

    def _seal_data_parallel(
        self,
        runner: Any,  # noqa: ANN401 - vLLM's own
        box: BlackBox | None,
        *,
        everywhere: bool,
    ) -> None:
        """Compare with data-parallel ranks what was captured, where they launch together."""
        from graphguard.vllm.data_parallel import DataParallelSteps

        try:
            coupled, self._alone = groups.data_parallel_coupling(runner.vllm_config)
            if not coupled or not armed.is_armed("data-parallel"):
                return
            if not everywhere:
                self._alone = "they could not meet when they started"
                return
            if self.data_parallel is None:
                agreement = groups.data_parallel_agreement(self.options.mode)
                steps = None if agreement is None else DataParallelSteps(agreement, box)
            else:
                steps = self.data_parallel
            guards = [model.guard for model in self.models]
            self.data_parallel = steps if steps is not None and steps.seal(guards) else None
        except Exception as error:
            if self.options.mode is Mode.ENFORCE:
                raise
            self._alone = "they could not be compared"
            logger().warning("data-parallel ranks are not compared: %r", error)

    def _audit(self, runner: Any) -> None:  # noqa: ANN401 - vLLM's own
        """Look for what is known to have done harm; that is told, and changes nothing."""
        from graphguard.vllm.startup import Severity, audit_engine
        from graphguard.vllm.startup.reading import engine_facts

        try:
            found = audit_engine(engine_facts(runner.vllm_config, runner))
        except Exception as error:  # noqa: BLE001 - a hint that is lost is no reason not to serve
            logger().warning("the engine is not audited: %r", error)
            return
        # Every rank sees the same, but for numbers; one of them says it.
        for finding in found if process_rank()[0] == 0 else ():
            if finding not in self.findings:
                say = logger().info if finding.severity is Severity.NOTE else logger().warning
                say("start-up: %s", finding)
        self.findings = found

    def line(self) -> str:
        """Say in one line what is guarded, with which ranks it is compared, and what is not."""
        rank, _ = process_rank()
        models = "; ".join(_in_words(steps.guard) for steps in self.models) or "no model"
        compared = [agreement for steps in self.models[:1] for agreement in steps.guard.agreements]
        if self.data_parallel is not None:
            compared.append(self.data_parallel.agreement)
        names = ", ".join(map(_with_nodes, compared))
        ranks = f"compared with the ranks of {names}" if names else "no ranks to compare"
        alone = f"; not compared with data-parallel ranks: {self._alone}" if self._alone else ""
        parts = armed.statuses()
        hooks = ", ".join(status.part for status in parts if status.armed)
        absent = "; ".join(str(status) for status in parts if not status.armed)
        return (
            f"rank {rank} is guarded (graphguard {__version__}, mode {self.options.mode}, hooks "
            f"{hooks}): {models}; {ranks}{alone}{f'; {absent}' if absent else ''}"
        )


def _steps_v1(role: str, options: Options, session: Session) -> Steps:
    from graphguard.vllm.steps_v1 import StepsV1

    return StepsV1(ModelGuard(role, options.mode, session), options)


def _in_words(guard: ModelGuard) -> str:
    calls = [call for signature in guard.signatures for call in signature.collectives]
    transports = ", ".join(sorted({call.seen_by.removeprefix("vllm:") for call in calls}))
    by = f" by {transports}" if transports else ""
    return f"{guard.key.role}: {len(guard.signatures)} graphs, {len(calls)} collective calls{by}"


def _with_nodes(agreement: Agreement) -> str:
    """Return the name of a group, with the ranks that its ledger does not reach."""
    remote = agreement.remote_ranks
    if not remote:
        return agreement.name
    return (
        f"{agreement.name} (of which {ranks_text(remote)} on other nodes, out of reach of shared "
        "memory: differences with them are found beside the steps, and not prevented)"
    )


_worker: WorkerGuard | None = None


def worker_guard() -> WorkerGuard:
    """Return the guard of this process."""
    global _worker  # noqa: PLW0603 - there is one in a process
    if _worker is None:
        from graphguard.vllm.options import read_options

        _worker = WorkerGuard(read_options())
    return _worker
