"""A capture function with its graphs: what the decorator returns and a program calls."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import TYPE_CHECKING, Any

from graphguard import environment
from graphguard.batch import BatchDescriptor
from graphguard.enforced_steps import EnforcedSteps
from graphguard.environment import Mode
from graphguard.errors import ConfigurationError
from graphguard.fallbacks import Eager, Fallbacks
from graphguard.graph_set import GraphSet
from graphguard.launching import FillPadding, Launcher, Unpad
from graphguard.log import logger
from graphguard.observed_steps import Choose, ObservedSteps
from graphguard.policy import Policy
from graphguard.recaptures import Recaptures
from graphguard.session import Session
from graphguard.static_inputs import VerdictCounts
from graphguard.step_parts import StepParts
from graphguard.step_records import StepRecords
from graphguard.verdict import Verdict

if TYPE_CHECKING:
    from graphguard.agreed_steps import Fits
    from graphguard.agreement.group import Agreement
    from graphguard.group_steps import GroupSteps


class GuardedCapture:
    """A capture function with its graphs. Call it with a batch descriptor to run a step.

    Made by :func:`graphguard.guard`. It belongs to one thread, as a CUDA stream does.

    Attributes:
        key: The family of its graphs.
        policy: What it does about a batch that does not fit.
    """

    def __init__(
        self,
        graph_set: GraphSet,
        policy: Policy,
        session: Session,
        *,
        eager: Eager | None,
        choose: Choose | None,
        fill_padding: FillPadding | None,
        unpad: Unpad | None,
        group: Any = None,  # noqa: ANN401 - whatever guard() takes
    ) -> None:
        self.key = graph_set.key
        self.policy = policy
        self._graphs = graph_set
        self._session = session
        self._fallbacks = Fallbacks(graph_set, eager)
        self._recaptures = Recaptures(graph_set, policy)
        self._counts = VerdictCounts(graph_set)
        self._records = StepRecords(graph_set, policy.mode)
        self._enforces = policy.mode is Mode.ENFORCE
        self._started = policy.mode is Mode.OFF
        self._refusal: Exception | None = None
        launcher = Launcher(graph_set, self._fallbacks, self._records, fill_padding, unpad)
        parts = StepParts(graph_set, policy, launcher, self._fallbacks, self._records, self._counts)
        enforced = EnforcedSteps(parts, self._recaptures, self._update_manifest)
        self._group = self._group_steps(group, enforced.fits, runs_eagerly=eager is not None)
        enforced.group = self._group
        observed = ObservedSteps(parts, choose, self._group)
        self._steps: EnforcedSteps | ObservedSteps = enforced if self._enforces else observed
        self._run = self._steps.run
        for reason, action in policy.fallbacks.items():
            graph_set.table.on(reason, action)

    @property
    def last_verdict(self) -> Verdict | None:
        """What was decided about the last step, or None before the first."""
        return self._steps.last_verdict

    @property
    def batches(self) -> tuple[BatchDescriptor, ...]:
        """The descriptors that graphs were captured for, in the order of capture."""
        return self._graphs.batches

    @property
    def agreement(self) -> Agreement | None:
        """The ranks that this guard agrees with, once they have met."""
        return None if self._group is None else self._group.agreement

    def verdicts(self) -> dict[Verdict, int]:
        """Return every verdict given so far, with how often."""
        return self._counts.counts()

    def warm_up(self, batches: Iterable[BatchDescriptor]) -> None:
        """Capture a graph for each descriptor, then write the manifest if a place is set for it.

        Ranks must capture the same descriptors in the same order. With a group, they meet at the
        end and compare what they captured.

        Raises:
            CaptureError: When enforcing, if a graph could not be captured or recorded. Otherwise
                errors of the capture function come as they are.
            AgreementError: When enforcing, if the ranks of the group captured different graphs,
                or one of them does not come in time.
            ManifestError: When enforcing, if the manifest could not be written.
        """
        before = self._graphs.reserved_bytes
        self._started, self._refusal = self.policy.mode is Mode.OFF, None
        try:
            for batch in batches:
                self._records.captured(self._graphs, self._graphs.add(batch))
        except Exception as error:
            self._refuse_steps(error)
            self._tell_of_failure(error)
            raise
        finally:
            self._recaptures.exclude_bytes(self._graphs.reserved_bytes - before)
        self._start()
        logger().info("%s", self._fallbacks.armed(self.policy.mode, self._group))
        self._write_manifest()

    def quarantine(self, batch: BatchDescriptor) -> int | None:
        """Take the graph that was captured for a descriptor out of use: its batches run eagerly.

        With a group this is announced, and holds from the same step on every rank.

        Returns:
            The step from which it holds, or None if it holds at once or could not be announced.

        Raises:
            ConfigurationError: If there is no such graph, if the guard does not enforce, or if
                its graphs may hold collectives and it has no group.
        """
        return self._announce("QUARANTINE", batch)

    def capture_again(self, batch: BatchDescriptor) -> int | None:
        """Let every rank capture the graph for a descriptor again, at the same step.

        Returns:
            The step at which it happens, or None if it could not be announced.

        Raises:
            ConfigurationError: If there is no such graph, or the guard does not enforce or has no
                group.
        """
        return self._announce("CAPTURE_AGAIN", batch)

    def __call__(self, batch: BatchDescriptor, *, inputs: Mapping[str, Any] | None = None) -> Any:  # noqa: ANN401 - what the capture function gave as outputs
        """Run one step: replay, pad, capture, run eagerly, or refuse.

        Args:
            batch: What the step wants to run.
            inputs: With ``check_inputs``, the static tensors that the step has filled, by name;
                without it the captured ones are looked at themselves.

        Returns:
            The outputs of the graph, or what ``eager`` returned.

        Raises:
            GuardMismatch: When enforcing, if the policy refuses the step.
            RanksDiverged: When enforcing with a group, if this rank cannot do what the others do.
            CaptureError: If the policy asked for a capture and it failed.
        """
        if not self._started:
            self._start()
        return self._run(batch, inputs)

    def _start(self) -> None:
        """Open the black box, and seal the graphs with the ranks of the group."""
        if self.policy.mode is Mode.OFF:
            return
        if self._refusal is not None:
            raise self._refusal.with_traceback(None)
        self._started = True
        if self._group is None:
            self._records.open()
            return
        try:
            self._seal(self._group)
        except Exception as error:
            if self._enforces:
                self._refuse_steps(error)
                raise
            logger().warning("%s: ranks are not compared: %s", self.key, error)

    def _seal(self, group: GroupSteps, failure: str = "") -> None:
        group.seal(self._records.open(), failure)
        if group.steps is not None:
            self._records.write_as(group.steps.ring)

    def _refuse_steps(self, failure: Exception) -> None:
        """Launch nothing that the ranks have not agreed on: every step raises this error."""
        if self._enforces and self._group is not None:
            self._started, self._refusal = False, failure

    def _tell_of_failure(self, failure: Exception) -> None:
        """Let the other ranks know, who would wait for this one's captures."""
        if self._group is None:
            return
        try:
            self._seal(self._group, f"{type(failure).__name__}: {failure}"[:1_000])
            self._started = not self._enforces
        except Exception as error:  # noqa: BLE001 - the failure itself is raised
            logger().warning("%s: the other ranks may not know of it: %s", self.key, error)

    def _announce(self, kind: str, batch: BatchDescriptor) -> int | None:
        graph = self._graphs.by_batch.get(batch)
        if graph is None or not self._enforces or self._group is None or not self._started:
            raise ConfigurationError(
                f"the graph {self.key} {batch} cannot be taken out of use or captured again",
                hint="this needs mode='enforce', and a graph that the group has agreed on",
            )
        from graphguard.agreement.launches import NoticeKind

        return self._group.announce(NoticeKind[kind], graph)

    def _group_steps(
        self,
        group: Any,  # noqa: ANN401 - whatever guard() takes
        fits: Fits,
        *,
        runs_eagerly: bool,
    ) -> GroupSteps | None:
        if group is None or self.policy.mode is Mode.OFF:
            return None
        from graphguard.group_steps import GroupSteps

        return GroupSteps(
            group,
            self._graphs,
            self.policy,
            self._recaptures,
            fits=fits,
            runs_eagerly=runs_eagerly,
        )

    def _write_manifest(self) -> None:
        if self.policy.mode is Mode.OFF or environment.directory() is None:
            return
        try:
            path = self._session.write_manifest()
        except Exception as error:
            if self._enforces:
                raise
            logger().warning("the manifest is not written: %s", error)
        else:
            logger().info("manifest written to %s", path)

    def _update_manifest(self) -> None:
        """Write it again in a step, which other ranks launch whether this one can write or not."""
        try:
            self._write_manifest()
        except Exception as error:  # noqa: BLE001
            logger().warning("the manifest is not written: %s", error)
