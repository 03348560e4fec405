"""A step of the V1 runner or its proposer: what it wants, what vLLM chose, and what is done.

Everything is decided in the first ``CudagraphDispatcher.dispatch`` of the step. That is before
data-parallel ranks agree on their batch, so that what they agree on is what was decided here, and
everything that vLLM derives from its choice (padding, metadata, buffers) follows from it.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from graphguard.batch import BatchDescriptor
from graphguard.errors import GuardMismatch
from graphguard.signature import GraphKey, GraphMode
from graphguard.verdict import Action, Reason, Verdict
from graphguard.vllm.batches import Batches
from graphguard.vllm.captures import Captures, Choice
from graphguard.vllm.model_guard import ModelGuard
from graphguard.vllm.options import OnMismatch, Options
from graphguard.vllm.padding import PaddingFinding, violations
from graphguard.vllm.padding_checks import PaddingChecks
from graphguard.vllm.padding_views import Extent, V1Metadata

Dispatch = Callable[..., tuple[Any, Any]]
"""vLLM's own ``dispatch``, bound to its dispatcher: returns mode and descriptor."""

Sizes = tuple[int, int | None, int]
"""Tokens, requests and LoRAs of a graph."""

_PAD = Action.PAD
_ADOPTED = Reason.ADOPTED
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
        padded: How a full graph that is about to be launched is padded, or None.
    """

    def __init__(self, guard: ModelGuard, options: Options) -> None:
        self.guard = guard
        self.pending: BatchDescriptor | None = None
        self.padded: Extent | None = None
        self.batch = Batches().of
        self._options = options
        self._graphs: dict[str, dict[Sizes, int]] = {_FULL: {}, _PIECEWISE: {}}
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
            graphs, sizes = self._graphs[choice.mode], _sizes(choice.descriptor)
            if sizes not in graphs:
                batch = batch_captured_for(choice)
                key = key_of(self.guard.key.role, choice, batch)
                signature = captures.signature(choice, key, batch)
                graphs[sizes] = self.guard.add(signature, choice)

    def dispatch(self, original: Dispatch, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:  # noqa: ANN401
        """Dispatch the pending step: vLLM's choice if it fits and all ranks make it."""
        batch, self.pending = self.pending, None
        assert batch is not None  # noqa: S101 - the caller has asked
        chosen = original(*args, **kwargs)
        if self.guard.enforces:
            return self._decide(batch, chosen, original, args, kwargs)
        try:
            self._observe(batch, chosen)
        except Exception as error:  # noqa: BLE001 - nothing of this may reach the engine
            self.guard.say_once("step", f"{self.guard.key} {batch} is not checked: {error!r}")
        return chosen

    def _observe(self, batch: BatchDescriptor, chosen: Any) -> None:  # noqa: ANN401 - vLLM's own
        guard, graph = self.guard, self._graph_of(chosen)
        verdict = guard.check(graph, batch)
        if graph is not None and verdict.action > _PAD:
            guard.say_once(verdict.reason.name, guard.misfit(verdict, graph, batch))
        guard.agree(verdict, graph, batch)
        self._note_padding(verdict, chosen, batch)

    def _decide(
        self,
        batch: BatchDescriptor,
        chosen: Any,  # noqa: ANN401 - vLLM's own
        original: Dispatch,
        args: tuple[Any, ...],
        kwargs: dict[str, Any],
    ) -> Any:  # noqa: ANN401 - vLLM's own
        guard, graph = self.guard, self._graph_of(chosen)
        verdict = guard.check(graph, batch)
        if self._refuses(graph, verdict, chosen[0]):
            chosen, graph, verdict = self._other(batch, chosen, verdict, original, args, kwargs)
            guard.degraded(verdict)
        agreed = guard.agree(verdict, graph, batch)
        if agreed.reason is _ADOPTED:
            chosen = self._adopted(agreed, original, args, kwargs)
        self._note_padding(agreed, chosen, batch)
        return chosen

    def _graph_of(self, chosen: Any) -> int | None:  # noqa: ANN401 - vLLM's own
        mode = chosen[0]
        if mode is self._full:
            return self._graphs[_FULL].get(_sizes(chosen[1]))
        if mode is self._piecewise:
            return self._graphs[_PIECEWISE].get(_sizes(chosen[1]))
        return None

    def _note_padding(self, verdict: Verdict, chosen: Any, batch: BatchDescriptor) -> None:  # noqa: ANN401
        padded = verdict.action is _PAD and chosen[0] is self._full
        self.padded = _extent(chosen[1], batch) if padded else None

    def check_padding(self, runner: Any) -> None:  # noqa: ANN401 - vLLM's own
        """Look at the padded slots of the step, which vLLM has filled by now.

        Raises:
            PaddingMismatch: When enforcing, if they hold what breaks a kernel.
        """
        extent, self.padded = self.padded, None
        if extent is None:
            return
        self._padding.look(self._padding_findings, runner, extent)

    def _padding_findings(self, runner: Any, extent: Extent) -> list[PaddingFinding]:  # noqa: ANN401
        from vllm.forward_context import get_forward_context

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

    def _other(  # noqa: PLR0917 - what a dispatch has
        self,
        batch: BatchDescriptor,
        chosen: Any,  # noqa: ANN401 - vLLM's own
        verdict: Verdict,
        original: Dispatch,
        args: tuple[Any, ...],
        kwargs: dict[str, Any],
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
        graphs = self._graphs[_PIECEWISE]
        if self._options.on_mismatch is not OnMismatch.EAGER and chosen[0] is self._full:
            other = original(*args, **(kwargs | {"invalid_modes": {self._modes[_FULL]}}))
            graph = graphs.get(_sizes(other[1])) if other[0] is self._piecewise else None
            if graph is not None and graph not in self.guard.quarantined:
                found = self.guard.check(graph, batch)
                if found.action <= _PAD:
                    return other, graph, Verdict(found.action, why.reason, graph)
        eager = self._eagerly(original, args, kwargs)
        return eager, None, Verdict(Action.EAGER, why.reason)

    def _why(self, chosen: Any, verdict: Verdict) -> Verdict:  # noqa: ANN401 - vLLM's own
        graph = self._graphs[chosen[0].name].get(_sizes(chosen[1]))
        if graph is not None and graph in self.guard.quarantined:
            return Verdict(Action.EAGER, Reason.QUARANTINED, graph)
        return verdict

    def _eagerly(self, original: Dispatch, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:  # noqa: ANN401
        return original(
            *args, **(kwargs | {"valid_modes": {self._modes[_NONE]}, "invalid_modes": None})
        )

    def _adopted(
        self, agreed: Verdict, original: Dispatch, args: tuple[Any, ...], kwargs: dict[str, Any]
    ) -> Any:  # noqa: ANN401 - vLLM's own
        if agreed.graph is None or agreed.action > _PAD:
            return self._eagerly(original, args, kwargs)
        choice: Choice = self.guard.choices[agreed.graph]
        return self._modes[choice.mode], choice.descriptor


def _sizes(descriptor: Any) -> Sizes:  # noqa: ANN401 - vLLM's own
    """Return what tells the graphs of a mode apart: hashing the descriptor takes twice as long."""
    return descriptor.num_tokens, descriptor.num_reqs, descriptor.num_active_loras


def _extent(descriptor: Any, batch: BatchDescriptor) -> Extent | None:  # noqa: ANN401 - vLLM's own
    """Return how far a full graph is padded."""
    if not descriptor.num_reqs:
        return None
    query_len = batch.query_len if descriptor.uniform else 0
    return Extent(
        batch.num_reqs, descriptor.num_reqs, batch.num_tokens, descriptor.num_tokens, query_len
    )


def batch_captured_for(choice: Choice) -> BatchDescriptor:
    """Return the descriptor that a graph of vLLM stands for.

    A uniform full graph is for decodes of ``num_tokens / num_reqs`` query tokens each. Every other
    one takes any requests of that many tokens.
    """
    descriptor: Any = choice.descriptor
    if choice.mode == _FULL and descriptor.uniform and descriptor.num_reqs:
        query_len, rest = divmod(descriptor.num_tokens, descriptor.num_reqs)
        if rest == 0:
            return BatchDescriptor.of(descriptor.num_reqs, query_len)
    return BatchDescriptor.tokens(descriptor.num_tokens)


def key_of(role: str, choice: Choice, batch: BatchDescriptor) -> GraphKey:
    """Return the family of a graph of vLLM."""
    mode = GraphMode.FULL if choice.mode == _FULL else GraphMode.PIECEWISE
    words = []
    if mode is GraphMode.FULL and batch.num_reqs == 0:
        words.append("mixed")
    if loras := getattr(choice.descriptor, "num_active_loras", 0):
        words.append(f"{loras} LoRA")
    return GraphKey(role, mode, ", ".join(words))
