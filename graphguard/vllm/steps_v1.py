"""A step of the V1 runner or its proposer: what it wants, what vLLM chose, and what is done.

Everything is decided in the first ``CudagraphDispatcher.dispatch`` of the step. That is before
data-parallel ranks agree on their batch, so that what they agree on is what was decided here, and
everything that vLLM derives from its choice (padding, metadata, buffers) follows from it.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from graphguard import _core
from graphguard.batch import BatchDescriptor
from graphguard.errors import GuardMismatch
from graphguard.verdict import Action, Reason, Verdict
from graphguard.vllm.batches import Batches
from graphguard.vllm.captures import Captures, Choice
from graphguard.vllm.families_v1 import Sizes, batch_captured_for, key_of, sizes_of
from graphguard.vllm.model_guard import ModelGuard
from graphguard.vllm.options import OnMismatch, Options
from graphguard.vllm.padding import PaddingFinding, violations
from graphguard.vllm.padding_checks import PaddingChecks
from graphguard.vllm.padding_views import Extent, V1Metadata

Again = Callable[..., tuple[Any, Any]]
"""Dispatches a step again with other modes: returns mode and descriptor."""

BatchSizes = tuple[int, int, int, int]
"""What a step wants to run: requests, the longest query, tokens, phase. Making a descriptor of it
takes longer than a check."""

_PAD = Action.PAD
_ADOPTED = Reason.ADOPTED
_UNPUBLISHED = -1
_FULL, _PIECEWISE, _NONE = "FULL", "PIECEWISE", "NONE"


class StepsV1:
    """The steps of one model on the V1 runner.

    Args:
        guard: The guard of the model.
        options: What the environment asks for.

    Attributes:
        guard: The guard of the model.
        batch: Returns the descriptor of a batch.
        pending: What the step wants to run, until it was dispatched; None outside of steps.
        padded: The descriptor of a padded full graph that is about to be launched, and what it is
            launched for, or None.
        input_batch: Whose arrays :attr:`phase` reads.
        phase: Returns the phase of a batch of that many requests.
    """

    def __init__(self, guard: ModelGuard, options: Options) -> None:
        self.guard = guard
        self.pending: BatchSizes | None = None
        self.padded: tuple[Any, BatchSizes] | None = None
        self.batch = Batches().of
        self.input_batch: Any = None
        self.phase: Callable[[int], int] = _not_read
        self.batch = Batches().of
        self._options = options
        self._avoids_padding = options.avoids_padding
        self._full_graphs: dict[Sizes, int] = {}
        self._piecewise_graphs: dict[Sizes, int] = {}
        self._modes: dict[str, Any] = {}
        self._full: Any = None
        self._piecewise: Any = None
        self._metadata: V1Metadata | None = None
        self._padding = PaddingChecks(guard)

    def take(self, captures: Captures, modes: Any) -> None:  # noqa: ANN401 - vLLM's CUDAGraphMode
        """Take what was captured since the last call.

        Args:
            captures: The captures of the model.
            modes: vLLM's enum of graph modes.
        """
        self._modes = {name: modes[name] for name in (_FULL, _PIECEWISE, _NONE)}
        self._full, self._piecewise = modes[_FULL], modes[_PIECEWISE]
        for choice in captures.choices:
            graphs = self._full_graphs if choice.mode == _FULL else self._piecewise_graphs
            sizes = sizes_of(choice.descriptor)
            if sizes not in graphs:
                batch = batch_captured_for(choice)
                key = key_of(self.guard.key.role, choice, batch)
                signature = captures.signature(choice, key, batch)
                graphs[sizes] = self.guard.add(signature, choice)

    def read_phases_of(self, input_batch: Any) -> None:  # noqa: ANN401 - vLLM's own
        """Take the arrays from which the phase of every batch is read. They stay where they are.

        The last token of a prompt, over computed ones, counts as a decode: since 0.26 the scheduler
        pads it with drafts so that it replays the graph for decodes (``pad_spec_decode``), and the
        runner takes it for one. Before, it never had the shape of that graph.
        """
        phases = _core.Phases(
            input_batch.num_computed_tokens_cpu, input_batch.num_prompt_tokens, True
        )
        self.input_batch, self.phase = input_batch, phases.of

    def dispatched(self, sizes: BatchSizes, chosen: Any, again: Again) -> Any:  # noqa: ANN401
        """Check what vLLM has chosen for a step, and return what is run.

        Args:
            sizes: What the step wants to run.
            chosen: Mode and descriptor.
            again: Dispatches the step again.
        """
        self.padded = None
        guard = self.guard
        try:
            mode, descriptor = chosen
            graph = self._graph_of(mode, descriptor)
            if (
                graph is not None
                and (take := guard.take) is not None
                and not guard.quarantined
                and not self._avoids_padding
            ):
                found = take(graph, *sizes)
                if found is None:
                    return self._settled(sizes, chosen, graph, again, *guard.unfinished())
                guard.last_verdict = found
                if found.action is _PAD and mode is self._full:
                    self.padded = descriptor, sizes
                return chosen
            return self._settled(sizes, chosen, graph, again)
        except Exception as error:
            if guard.enforces:
                raise
            # Nothing of this may reach the engine.
            guard.say_once("step", f"{guard.key} {sizes} is not checked: {error!r}")
            return chosen

    def _settled(  # noqa: PLR0917 - what is known of a step by now
        self,
        sizes: BatchSizes,
        chosen: Any,  # noqa: ANN401 - vLLM's own
        graph: int | None,
        again: Again,
        verdict: Verdict | None = None,
        answer: int = _UNPUBLISHED,
    ) -> Any:  # noqa: ANN401 - vLLM's own
        """Return what is run in a step that was not taken in one call.

        Args:
            sizes: What the step wants to run.
            chosen: Mode and descriptor.
            graph: The graph that this is.
            again: Dispatches the step again.
            verdict: What was found of the step, if it was checked.
            answer: What the ledger has answered, if it was published.
        """
        guard, batch = self.guard, self.batch(*sizes)
        if verdict is None:
            verdict = guard.check(graph, batch)
        if answer >= 0:
            agreed = guard.resolve(verdict, answer, graph, batch)
        else:
            if not guard.enforces:
                if graph is not None and verdict.action > _PAD:
                    guard.say_once(verdict.reason.name, guard.misfit(verdict, graph, batch))
            elif self._refuses(graph, verdict, chosen[0]):
                chosen, graph, verdict = self._other(batch, chosen, verdict, again)
                guard.degraded(verdict)
            agreed = guard.agree(verdict, graph, batch)
        if agreed.reason is _ADOPTED:
            chosen = self._adopted(agreed, again)
        self._note_padding(agreed, chosen, sizes)
        return chosen

    def _graph_of(self, mode: Any, descriptor: Any) -> int | None:  # noqa: ANN401 - vLLM's own
        if mode is self._full:
            graphs = self._full_graphs
        elif mode is self._piecewise:
            graphs = self._piecewise_graphs
        else:
            return None
        # As sizes_of() does it: hashing the descriptor takes twice as long.
        return graphs.get((descriptor.num_tokens, descriptor.num_reqs, descriptor.num_active_loras))

    def _note_padding(self, verdict: Verdict, chosen: Any, sizes: BatchSizes) -> None:  # noqa: ANN401
        padded = verdict.action is _PAD and chosen[0] is self._full
        self.padded = (chosen[1], sizes) if padded else None

    def leave_out(self, sizes: BatchSizes) -> None:
        """Publish that the model is not run in a step of these sizes."""
        self.guard.leave_out(self.batch(*sizes))

    def check_padding(self, runner: Any) -> None:  # noqa: ANN401 - vLLM's own
        """Look at the padded slots of the step, which vLLM has filled by now.

        Raises:
            PaddingMismatch: When enforcing, if they hold what breaks a kernel.
        """
        padded, self.padded = self.padded, None
        if padded is None:
            return
        self._padding.look(self._padding_findings, runner, *padded)

    def _padding_findings(
        self,
        runner: Any,  # noqa: ANN401 - vLLM's own
        descriptor: Any,  # noqa: ANN401 - vLLM's own
        sizes: BatchSizes,
    ) -> list[PaddingFinding]:
        from vllm.forward_context import get_forward_context

        extent = _extent(descriptor, sizes)
        if extent is None:
            return []
        if self._metadata is None:
            self._metadata = V1Metadata(runner)
        metadata = get_forward_context().attn_metadata
        findings = violations(self._metadata.view(extent, metadata))
        if not self._metadata.all_seen:
            findings += self._padding.sampled(self._metadata.tensors, extent, metadata)
        return findings

    def _refuses(self, graph: int | None, verdict: Verdict, mode: Any) -> bool:  # noqa: ANN401
        if graph is None:
            # vLLM chose no graph, or one that was not recorded.
            return mode is self._full or mode is self._piecewise
        if verdict.action is _PAD:
            avoided = self._options.avoids_padding and mode is self._full
            return avoided or graph in self.guard.quarantined
        return verdict.action > _PAD or graph in self.guard.quarantined

    def _other(
        self,
        batch: BatchDescriptor,
        chosen: Any,  # noqa: ANN401 - vLLM's own
        verdict: Verdict,
        again: Again,
    ) -> tuple[Any, int | None, Verdict]:
        """Choose as vLLM does when a graph is not there: full, then piecewise, then eager.

        Raises:
            GuardMismatch: If mismatches are to be refused.
        """
        why = self._why(chosen, verdict)
        if self._options.on_mismatch is OnMismatch.RAISE and why.reason is not Reason.PADDED:
            raise GuardMismatch(
                f"{self.guard.key.role} {batch}: {why.reason.explanation}",
                verdict=why,
                hint="GRAPHGUARD_ON_MISMATCH=degrade runs such steps without that graph",
            )
        graphs = self._piecewise_graphs
        if self._options.on_mismatch is not OnMismatch.EAGER and chosen[0] is self._full:
            other = again(invalid_modes={self._full})
            graph = graphs.get(sizes_of(other[1])) if other[0] is self._piecewise else None
            if graph is not None and graph not in self.guard.quarantined:
                found = self.guard.check(graph, batch)
                if found.action <= _PAD:
                    return other, graph, Verdict(found.action, why.reason, graph)
        return self._eagerly(again), None, Verdict(Action.EAGER, why.reason)

    def _why(self, chosen: Any, verdict: Verdict) -> Verdict:  # noqa: ANN401 - vLLM's own
        graph = self._graph_of(*chosen)
        if graph is not None and graph in self.guard.quarantined:
            return Verdict(Action.EAGER, Reason.QUARANTINED, graph)
        return verdict

    def _eagerly(self, again: Again) -> Any:  # noqa: ANN401 - vLLM's own
        return again(valid_modes={self._modes[_NONE]}, invalid_modes=None)

    def _adopted(self, agreed: Verdict, again: Again) -> Any:  # noqa: ANN401 - vLLM's own
        if agreed.graph is None or agreed.action > _PAD:
            return self._eagerly(again)
        choice: Choice = self.guard.choices[agreed.graph]
        return self._modes[choice.mode], choice.descriptor


def _extent(descriptor: Any, sizes: BatchSizes) -> Extent | None:  # noqa: ANN401 - vLLM's own
    """Return how far a full graph is padded."""
    if not descriptor.num_reqs:
        return None
    num_reqs, query_len, num_tokens, _ = sizes
    if not descriptor.uniform:
        query_len = 0
    return Extent(num_reqs, descriptor.num_reqs, num_tokens, descriptor.num_tokens, query_len)


def _not_read(num_reqs: int) -> int:
    raise LookupError(f"the phase of {num_reqs} requests is asked before their arrays were taken")
