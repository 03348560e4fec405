"""What happens around the launch of a graph that a program captured without graphguard.

In observe it is recorded, and compared with the other ranks where they have agreed. In enforce the
launch is refused besides, with an error that the program gets from its own ``replay()``: nothing
can be run in the place of a graph of which nothing is known.
"""

from __future__ import annotations

import os
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from graphguard import _core
from graphguard.environment import Mode
from graphguard.errors import GuardMismatch
from graphguard.metrics.samples import STEP_BUCKETS, STEP_SHIFT
from graphguard.session import process_rank
from graphguard.signature import Signature
from graphguard.static_tensors import StaticTensors
from graphguard.step_records import NO_GROUP, steps_alone
from graphguard.verdict import Action, Reason, Verdict

if TYPE_CHECKING:
    from graphguard._core import BlackBox as Ring
    from graphguard.agreed_steps import AgreedSteps
    from graphguard.agreement.seal import SealOutcome
    from graphguard.blackbox.writer import BlackBox
    from graphguard.program_graphs import GraphWatch, ProgramGraphs

# A flag of graphguard.blackbox.events, which is not loaded before there is a black box.
_ENFORCE = 2

_REPLAY, _ABORT, _EXACT = Action.REPLAY, Action.ABORT, Reason.EXACT


class Replays:
    """What the launches of all graphs of a process have in common.

    Args:
        program: The graphs.

    Attributes:
        steps: How launches are agreed on with other ranks, or None. They are then one sequence, so
            that only one thread may launch graphs.
        refusal: Why no graph may be launched any more, or None.
        launches: Marks where each launch begins and ends.
    """

    def __init__(self, program: ProgramGraphs) -> None:
        self.launches = _core.Launches(STEP_SHIFT, STEP_BUCKETS)
        self.launches.replays = True
        self.steps: AgreedSteps | None = None
        self.refusal: Exception | None = None
        self._program = program
        self._box: BlackBox | None = None
        self._opened_in = 0

    def of_graph(self, watch: GraphWatch) -> GraphReplays:
        """Return what one graph needs for its launches."""
        return GraphReplays(self._program, self, watch)

    def box(self) -> BlackBox | None:
        """Return the black box of the process, opened by the first call."""
        # A child after a fork has a black box of its own.
        if self._opened_in != os.getpid():
            from graphguard.blackbox.writer import process_box

            self._opened_in = os.getpid()
            self._box = process_box()
            if self._box is not None:
                from graphguard.watch import watchdog

                watchdog.start()
        return self._box

    def agree(self, group: Any) -> SealOutcome | None:  # noqa: ANN401 - see Installation.agree
        """Compare what the ranks of a group captured, and from then on every launch."""
        from graphguard.agreed_steps import AgreedSteps
        from graphguard.agreement.group import agreement_of

        program = self._program
        agreement = agreement_of(group, program.mode)
        try:
            outcome = agreement.seal(program.key, program.signatures)
        except Exception as error:
            if program.mode is Mode.ENFORCE:
                self.refusal = error
            raise
        if outcome is not None and self.steps is None:
            self.steps = AgreedSteps(
                agreement,
                program,
                self.box(),
                # Another graph than the one that the program launches cannot be launched instead.
                fits=lambda *_: None,
                runs_eagerly=False,
                vote_seconds=None,
            )
            agreement.launches.append(self.launches)
        return outcome

    def added(self) -> None:
        """Take note of a graph that was captured."""
        if self.steps is not None:
            self.steps.add_graphs()

    def changed(self, number: int) -> None:
        """Take note of a graph that was captured again, or described."""
        if self.steps is not None:
            self.steps.replace_graph(number)


class GraphReplays:
    """The launches of one graph.

    Args:
        program: All graphs of the process.
        replays: What their launches have in common.
        watch: The graph.
    """

    def __init__(self, program: ProgramGraphs, replays: Replays, watch: GraphWatch) -> None:
        self._program = program
        self._replays = replays
        self._watch = watch
        self._enforces = program.mode is Mode.ENFORCE
        self._flags = _ENFORCE if self._enforces else 0
        self._ring: Ring | None = None
        self._role = NO_GROUP
        self._digest = 0
        self._inputs: StaticTensors | None = None
        self._exact = Verdict(_REPLAY, _EXACT)
        self._launching = False

    def captured(self, signature: Signature) -> None:
        """Take a signature, and record in the black box that there is one."""
        from graphguard.blackbox.events import Event

        assert self._watch.number is not None  # noqa: S101 - it has just got one
        self._digest = int(signature.shared_digest[:16], 16)
        self._exact = Verdict(_REPLAY, _EXACT, self._watch.number)
        box = self._replays.box()
        if box is None:
            return
        # One role for all: a black box has room for a hundred names. The digest tells graphs apart.
        role = signature.key.role
        self._role = box.name(role)
        self._ring = self._ring or box.ring.another()
        box.record(
            Event.CAPTURE,
            role=role,
            digest=self._digest,
            batch=signature.batch,
            detail=len(signature.collectives),
        )

    def watch_inputs(self, signature: Signature, inputs: Mapping[str, Any]) -> None:
        """Look, before each launch, whether static tensors are what they were."""
        self._inputs = StaticTensors(signature.inputs, inputs)

    def begins(self, _graph: object = None) -> None:
        """Record a launch, and refuse it if it must not be.

        Raises:
            GuardMismatch: When enforcing, if a static tensor has changed, or another rank does not
                launch this graph.
            CaptureError: When enforcing, if the graph could not be recorded.
        """
        if not self._program.active or not self._watch.alive:
            return
        if self._enforces:
            self._enforce()
            return
        try:
            self._observe()
        except Exception as error:  # noqa: BLE001 - in observe nothing reaches the program
            self._program.say_once("replay", f"a launch is not recorded: {error!r}")

    def ended(self, _graph: object = None) -> None:
        """Record that the call that launches the graph has returned."""
        if not self._launching:
            return
        self._launching = False
        self._replays.launches.end()

    def _observe(self) -> None:
        verdict = self._prepared()
        if verdict.reason is not _EXACT:
            self._program.say_once("inputs", self._describe(verdict))
        number, steps = self._watch.number, self._replays.steps
        if number is None:
            return
        if steps is not None:
            steps.observe(number, verdict.reason, self._program.signatures[number].batch)
        else:
            self._record(verdict)
        self._launch(steps)

    def _enforce(self) -> None:
        if self._watch.failure is not None:
            raise self._watch.failure.with_traceback(None)
        if self._replays.refusal is not None:
            raise self._replays.refusal.with_traceback(None)
        verdict = self._prepared()
        number, steps = self._watch.number, self._replays.steps
        assert number is not None  # noqa: S101 - a graph without one has a failure
        if steps is not None:
            verdict = steps.decide(verdict, self._program.signatures[number].batch, None)
        else:
            self._record(verdict)
        if verdict.action is _ABORT:
            raise GuardMismatch(
                self._describe(verdict),
                verdict=verdict,
                hint="keep static tensors where they were at the capture, or capture again",
            )
        self._launch(steps)

    def _prepared(self) -> Verdict:
        manifest = self._program.manifest
        if manifest.pending:
            manifest.write_if_due()
        if self._inputs is None or (reason := self._inputs.reason()) is _EXACT:
            return self._exact
        return Verdict(_ABORT, reason, self._watch.number)

    def _record(self, verdict: Verdict) -> None:
        ring = self._ring
        if ring is None:
            return
        assert self._watch.signature is not None  # noqa: S101 - a ring comes with it
        batch = self._watch.signature.batch
        ring.check(
            self._role,
            NO_GROUP,
            next(steps_alone),
            self._digest,
            batch.num_reqs,
            batch.query_len,
            batch.num_tokens,
            batch.phase,
            verdict.action,
            verdict.reason,
            self._flags,
        )

    def _launch(self, steps: AgreedSteps | None) -> None:
        launches = self._replays.launches
        launches.write_to(self._ring if steps is None else steps.ring)
        launches.begin()
        self._launching = True

    def _describe(self, verdict: Verdict) -> str:
        rank, _ = process_rank()
        named = f" ({self._inputs.changed()})" if self._inputs is not None else ""
        return f"rank {rank}: {self._watch.signature}: {verdict.reason.explanation}{named}"
