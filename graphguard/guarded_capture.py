"""A capture function with its graphs: what the decorator returns and a program calls."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any

from graphguard import environment
from graphguard.batch import BatchDescriptor
from graphguard.environment import Mode
from graphguard.errors import ConfigurationError, GuardMismatch
from graphguard.graph_set import GraphSet
from graphguard.graphs.tensors import input_specs
from graphguard.log import logger
from graphguard.policy import InputCheck, Policy
from graphguard.recaptures import Recaptures
from graphguard.session import Session, process_rank
from graphguard.verdict import Action, Reason, Verdict

Eager = Callable[[BatchDescriptor], Any]
FillPadding = Callable[[BatchDescriptor, BatchDescriptor], None]
Choose = Callable[[BatchDescriptor, Sequence[BatchDescriptor]], BatchDescriptor | None]
Unpad = Callable[[Any, BatchDescriptor, BatchDescriptor], Any]


class GuardedCapture:
    """A capture function with its graphs. Call it with a batch descriptor to run a step.

    Made by :func:`graphguard.guard`. It belongs to one thread, as a CUDA stream does.

    Attributes:
        key: The family of its graphs.
        policy: What it does about a batch that does not fit.
        last_verdict: What was decided about the last step, or None before the first.
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
    ) -> None:
        self.key = graph_set.key
        self.policy = policy
        self.last_verdict: Verdict | None = None
        self._graphs = graph_set
        self._session = session
        self._eager = eager
        self._choose = choose
        self._fill_padding = fill_padding
        self._unpad = unpad
        self._recaptures = Recaptures(graph_set, policy)
        self._overruled: Counter[Verdict] = Counter()
        self._refused_inputs: Counter[Verdict] = Counter()
        self._said: set[str] = set()
        self._family = graph_set.table.family(self.key)
        # Bound once: these are on the path of every step.
        self._check = graph_set.table.check
        self._enforces = policy.mode is Mode.ENFORCE
        self._checks_inputs = policy.check_inputs is not InputCheck.OFF
        for reason, action in policy.fallbacks.items():
            graph_set.table.on(reason, action)

    @property
    def batches(self) -> tuple[BatchDescriptor, ...]:
        """The descriptors that graphs were captured for, in the order of capture."""
        return self._graphs.batches

    def verdicts(self) -> dict[Verdict, int]:
        """Return every verdict given so far, with how often."""
        counts = Counter(dict(self._graphs.table.counts()))
        # The table does not know of verdicts that static inputs have changed.
        return dict(counts - self._overruled + self._refused_inputs)

    def warm_up(self, batches: Iterable[BatchDescriptor]) -> None:
        """Capture a graph for each descriptor, then write the manifest if a place is set for it.

        Ranks must capture the same descriptors in the same order.

        Raises:
            CaptureError: When enforcing, if a graph could not be captured or recorded. Otherwise
                errors of the capture function come as they are.
            ManifestError: When enforcing, if the manifest could not be written.
        """
        before = self._graphs.reserved_bytes
        try:
            for batch in batches:
                self._graphs.add(batch)
        finally:
            self._recaptures.exclude_bytes(self._graphs.reserved_bytes - before)
        logger().info("%s", self._armed())
        self._write_manifest()

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
            CaptureError: If the policy asked for a capture and it failed.
        """
        if not self._enforces:
            return self._run_as_the_program_would(batch, inputs)
        verdict = self._check(
            self._family, batch.num_reqs, batch.query_len, batch.num_tokens, batch.phase
        )
        graph = verdict.graph
        if graph is None:
            self.last_verdict = verdict
            return self._diverge(verdict, batch)
        if self._checks_inputs:
            verdict = self._check_inputs(verdict, graph, inputs)
        self.last_verdict = verdict
        if verdict.action is Action.REPLAY:
            return self._launch(graph, batch, padded=None)
        if verdict.action is Action.PAD:
            return self._launch(graph, batch, padded=self._padded(graph, batch))
        return self._diverge(verdict, batch)

    def _launch(self, graph: int, batch: BatchDescriptor, padded: BatchDescriptor | None) -> Any:  # noqa: ANN401
        captured = self._graphs.captured[graph]
        if padded is None:
            captured.graph.replay()
            return captured.outputs
        if self._fill_padding is not None:
            self._fill_padding(batch, padded)
        captured.graph.replay()
        return self._unpad(captured.outputs, batch, padded) if self._unpad else captured.outputs

    def _padded(self, graph: int, batch: BatchDescriptor) -> BatchDescriptor | None:
        captured_for = self._graphs.signatures[graph].batch
        return None if captured_for.num_tokens == batch.num_tokens else captured_for

    def _run_as_the_program_would(
        self, batch: BatchDescriptor, inputs: Mapping[str, Any] | None
    ) -> Any:  # noqa: ANN401
        observed = self.policy.mode is Mode.OBSERVE
        arguments = (batch.num_reqs, batch.query_len, batch.num_tokens, batch.phase)
        if self._choose is None:
            verdict = self._check(self._family, *arguments)
            graph = verdict.graph
        else:
            chosen = self._choose(batch, self._graphs.batches)
            graph = None if chosen is None else self._chosen(batch, chosen)
            verdict = (
                self._check(self._family, *arguments)
                if graph is None
                else self._graphs.table.check_graph(graph, *arguments)
            )
        if observed:
            self._observe(verdict, batch, inputs)
        if graph is None:
            return self._run_eagerly(verdict, batch)
        return self._launch(graph, batch, self._padded(graph, batch))

    def _chosen(self, batch: BatchDescriptor, chosen: BatchDescriptor) -> int:
        graph = self._graphs.by_batch.get(chosen)
        if graph is None:
            raise ConfigurationError(
                f"choose returned {chosen} for {batch}, and {self.key} has no such graph",
                hint="return one of the descriptors that it is given, or None to run eagerly",
            )
        return graph

    def _observe(
        self, verdict: Verdict, batch: BatchDescriptor, inputs: Mapping[str, Any] | None
    ) -> None:
        if self._checks_inputs and verdict.graph is not None:
            try:
                verdict = self._check_inputs(verdict, verdict.graph, inputs)
            except Exception as error:  # noqa: BLE001 - in observe no failure of ours gets out
                self._say_once("inputs", f"{self.key} {batch}: inputs are not checked: {error}")
        self.last_verdict = verdict
        if verdict.action > Action.PAD:
            self._say_once(f"{verdict.reason}", self._describe(verdict, batch))

    def _check_inputs(
        self, verdict: Verdict, graph: int, inputs: Mapping[str, Any] | None
    ) -> Verdict:
        table = self._graphs.table
        given = self._graphs.captured[graph].inputs if inputs is None else inputs
        recorded = [spec.name for spec in self._graphs.signatures[graph].inputs]
        if sorted(given) != sorted(recorded):
            reason = Reason.INPUT_COUNT
        else:
            specs = input_specs({name: given[name] for name in recorded})
            addresses = self.policy.check_inputs is InputCheck.ADDRESS
            reason = Reason(table.check_inputs(graph, table.input_fields(specs), addresses)[0])
        if reason is Reason.EXACT:
            return verdict
        refused = Verdict(self.policy.fallbacks[reason], reason, graph)
        self._overruled[verdict] += 1
        self._refused_inputs[refused] += 1
        return refused

    def _diverge(self, verdict: Verdict, batch: BatchDescriptor) -> Any:  # noqa: ANN401
        if verdict.reason.rank_local and verdict.action is not Action.ABORT:
            self._require_alone(verdict, batch)
        if verdict.action is Action.RECAPTURE:
            return self._recapture(verdict, batch)
        if verdict.action is Action.EAGER:
            self._say_once(f"{verdict.reason}", self._describe(verdict, batch))
            return self._run_eagerly(verdict, batch)
        raise GuardMismatch(
            self._describe(verdict, batch),
            verdict=verdict,
            hint="capture a graph for this batch at warm-up, or let on_divergence run it eagerly",
        )

    def _recapture(self, verdict: Verdict, batch: BatchDescriptor) -> Any:  # noqa: ANN401
        self._recaptures.raise_if_failed(verdict, batch)
        limit = self._recaptures.over_count(verdict)
        if limit is None and (limit := self._recaptures.over_memory()) is not None:
            # Ranks count their captures alike, but each has its own memory.
            self._require_alone(verdict, batch)
        if limit is not None:
            self._say_once(
                "limit", f"{self._describe(verdict, batch)}; {limit}, so it runs eagerly"
            )
            return self._run_eagerly(verdict, batch)
        graph = self._recaptures.capture(verdict, batch)
        self._write_manifest()
        return self._launch(graph, batch, self._padded(graph, batch))

    def _require_alone(self, verdict: Verdict, batch: BatchDescriptor) -> None:
        """Refuse the step if other ranks take part in it and may not see what this one sees."""
        _, ranks = process_rank()
        # Before the first graph nobody knows whether they communicate.
        if self._graphs.communicates or (ranks > 1 and not self._graphs.signatures):
            raise GuardMismatch(
                f"{self._describe(verdict, batch)}; only this rank can see that, and its graphs "
                "may hold collectives: running this step another way would leave the others "
                "waiting",
                verdict=verdict,
                hint="keep static tensors in place and memory limits out of reach on every rank",
            )

    def _run_eagerly(self, verdict: Verdict, batch: BatchDescriptor) -> Any:  # noqa: ANN401
        if self._eager is None:
            raise GuardMismatch(
                f"{self._describe(verdict, batch)}, and there is no eager function to run instead",
                verdict=verdict,
                hint="give guard(..., eager=...)",
            )
        return self._eager(batch)

    def _armed(self) -> str:
        rank, _ = process_rank()
        if self.policy.mode is Mode.OFF:
            return f"rank {rank}: {self.key} is not guarded (mode off)"
        calls = sum(len(signature.collectives) for signature in self._graphs.signatures)
        return (
            f"rank {rank}: {self.key} is guarded (mode {self.policy.mode}): "
            f"{len(self._graphs.batches)} graphs with {calls} collective calls of "
            "torch.distributed; others are not seen, and ranks are not compared at run time"
        )

    def _describe(self, verdict: Verdict, batch: BatchDescriptor) -> str:
        rank, _ = process_rank()
        recorded = ", ".join(map(str, self._graphs.batches)) or "none"
        return (
            f"rank {rank}: {self.key} cannot replay {batch}: {verdict.reason.explanation} "
            f"(recorded: {recorded})"
        )

    def _say_once(self, topic: str, message: str) -> None:
        if topic not in self._said:
            self._said.add(topic)
            logger().warning("%s; this is said once", message)

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
