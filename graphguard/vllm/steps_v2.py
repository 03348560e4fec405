"""A step of the V2 runner or its speculator: what it wants, what vLLM chose, and what is done.

Everything is decided where vLLM asks a graph manager, in ``dispatch_cg_and_sync_dp`` and before
data-parallel ranks agree on their batch. A step that is kept out of the graphs for decodes is shown
to those ranks as vLLM shows a batch that is not uniform, so that all of them keep out of them.

With data parallelism, what vLLM dispatches after that agreement is not compared once more: between
tensor-parallel ranks it follows from what they have agreed on here.
"""

from __future__ import annotations

import functools
from typing import Any, NamedTuple

from graphguard.batch import BatchDescriptor
from graphguard.environment import Mode
from graphguard.errors import GuardMismatch
from graphguard.session import Session
from graphguard.signature import GraphKey, GraphMode
from graphguard.verdict import Action, Phase, Reason, Verdict
from graphguard.vllm.captures import Choice
from graphguard.vllm.captures_v2 import ManagerCaptures
from graphguard.vllm.dispatching_v2 import Answered, Asking, Descriptor, Request, for_decodes
from graphguard.vllm.model_guard import ModelGuard
from graphguard.vllm.options import OnMismatch, Options

_PAD = Action.PAD
_ADOPTED = Reason.ADOPTED
_EAGER = Verdict(Action.EAGER, Reason.NO_GRAPH)
_MAX_BATCHES = 65_536
_FULL, _NONE = "FULL", "NONE"


class PassGuard(ModelGuard):
    """The guard of a model that may run in several passes, each with graphs of its own.

    Attributes:
        usable: The graphs that the manager of the pass has: no other one may be adopted.
    """

    def __init__(self, role: str, mode: Mode, session: Session) -> None:
        super().__init__(role, mode, session)
        self.usable: frozenset[int] = frozenset()

    def check(self, graph: int | None, batch: BatchDescriptor) -> Verdict:
        """Say whether a graph fits a batch; see :meth:`ModelGuard.check`."""
        return super().check(graph if graph in self.usable else None, batch)


class _Graphs(NamedTuple):
    """The graphs of one manager.

    Attributes:
        ids: Which graph is captured for a descriptor.
        usable: All of them.
        ungraphed: Piecewise descriptors that have no graph and run eagerly.
    """

    ids: dict[Descriptor, int]
    usable: frozenset[int]
    ungraphed: set[Descriptor]


_NO_GRAPHS = _Graphs({}, frozenset(), set())


class StepsV2:
    """The steps of one model on the V2 runner.

    Args:
        guard: The guard of the model.
        options: What the environment asks for.

    Attributes:
        guard: The guard of the model.
        in_step: Whether a step runs that is checked, and no dummy run.
        held_back: Whether graphguard has kept the last step out of the graphs for decodes.
    """

    def __init__(self, guard: PassGuard, options: Options) -> None:
        self.guard = guard
        self.in_step = False
        self.held_back = False
        self._no_graphs: Any = None
        self._options = options
        self._passes: dict[str, _Graphs] = {}
        self._graphs = _NO_GRAPHS
        self._tied = self._changed = False
        self._batches: dict[tuple[int, int, int, int], BatchDescriptor] = {}

    @classmethod
    def of(cls, role: str, options: Options, session: Session) -> StepsV2:
        """Return the steps of a role."""
        return cls(PassGuard(role, options.mode, session), options)

    def take(self, captures: ManagerCaptures, modes: Any, name: str = "") -> None:  # noqa: ANN401
        """Take what a manager has captured, in place of what it had before.

        Args:
            captures: The captures of the manager.
            modes: vLLM's enum of graph modes.
            name: The pass that the manager is for; empty where there is one.
        """
        self._no_graphs = modes[_NONE]
        before = self._passes.get(name, _NO_GRAPHS).ids
        ids: dict[Descriptor, int] = {}
        for choice in captures.graphs.choices:
            batch = batch_captured_for(choice)
            key = key_of(self.guard.key.role, choice, batch, name)
            signature = captures.graphs.signature(choice, key, batch)
            known = before.get(choice.descriptor)
            if known is None or self.guard.signatures[known] != signature:
                known = self.guard.add(signature, choice)
            ids[choice.descriptor] = known
        self._passes[name] = _Graphs(ids, frozenset(ids.values()), captures.ungraphed)

    def batch(self, num_reqs: int, query_len: int, num_tokens: int, phase: int) -> BatchDescriptor:
        """Return the descriptor of a batch; making one takes longer than a check."""
        sizes = (num_reqs, query_len, num_tokens, phase)
        batch = self._batches.get(sizes)
        if batch is None:
            if len(self._batches) >= _MAX_BATCHES:
                self._batches.clear()
            uniform = num_reqs * query_len == num_tokens
            batch = BatchDescriptor(num_reqs, query_len, num_tokens, uniform, Phase(phase))
            self._batches[sizes] = batch
        return batch

    def dispatch(
        self, request: Request, batch: BatchDescriptor, name: str = "", *, tied: bool = False
    ) -> tuple[Descriptor, Any]:
        """Dispatch a step: vLLM's choice if it fits and all ranks make it.

        Args:
            request: What vLLM asks for.
            batch: What the step runs.
            name: The pass of the manager that is asked.
            tied: Whether the step may use no graph for decodes because the one whose buffers it
                reads does not.
        """
        self._graphs = self._passes[name]
        self.guard.usable = self._graphs.usable
        self._tied, self._changed = tied, False
        asking = Asking(request, functools.partial(self._decide, batch), self._no_graphs)
        result = request.answered_by(asking, uniform=True, alone=True)
        if asking.decided is None:
            # vLLM runs it eagerly without asking.
            self.guard.agree(_EAGER, None, batch)
            self.held_back = False
            return result if request.dp_size == 1 else request.unguarded()
        self.held_back = self._changed and not for_decodes(asking.decided)
        if request.dp_size == 1:
            return result
        # What data-parallel ranks have agreed on before may not be changed any more.
        uniform = not self.held_back or request.more.get("dp_sync_state") is not None
        answered = Answered(request.manager, asking.decided)
        return request.answered_by(answered, uniform=uniform, alone=False)

    def _decide(self, batch: BatchDescriptor, asking: Asking) -> Descriptor:
        """Return the descriptor that a step runs with."""
        guard = self.guard
        chosen = asking.choice()
        if self._tied and for_decodes(chosen):
            chosen, self._changed = asking.without_decodes(), True
        graph = self._graphs.ids.get(chosen)
        verdict = guard.check(graph, batch)
        if guard.enforces:
            if self._refuses(chosen, graph, verdict):
                chosen, graph, verdict = self._other(asking, batch, chosen, verdict)
                self._changed = True
                guard.degraded(verdict)
        elif graph is not None and verdict.action > _PAD:
            guard.say_once(verdict.reason.name, guard.misfit(verdict, graph, batch))
        agreed = guard.agree(verdict, graph, batch)
        if agreed.reason is not _ADOPTED:
            return chosen
        self._changed = True
        if agreed.graph is None or agreed.action > _PAD:
            return asking.eagerly(chosen)
        adopted: Choice = guard.choices[agreed.graph]
        return adopted.descriptor

    def _refuses(self, chosen: Descriptor, graph: int | None, verdict: Verdict) -> bool:
        if graph is None:
            # vLLM chose no graph, or one that was not recorded.
            return chosen.cg_mode.name != _NONE and chosen not in self._graphs.ungraphed
        if graph in self.guard.quarantined or verdict.action > _PAD:
            return True
        padded = verdict.action is _PAD and chosen.cg_mode.name == _FULL
        return padded and self._options.avoids_padding

    def _other(
        self, asking: Asking, batch: BatchDescriptor, chosen: Descriptor, verdict: Verdict
    ) -> tuple[Descriptor, int | None, Verdict]:
        """Choose as vLLM does for a batch that is not of decodes; where that fails too, no graph.

        Raises:
            GuardMismatch: If mismatches are to be refused.
        """
        guard, graph = self.guard, self._graphs.ids.get(chosen)
        if graph is not None and graph in guard.quarantined:
            verdict = Verdict(Action.EAGER, Reason.QUARANTINED, graph)
        why = verdict.reason
        if self._options.on_mismatch is OnMismatch.RAISE and why is not Reason.PADDED:
            raise GuardMismatch(
                f"{guard.key.role} {batch}: {why.explanation}",
                verdict=verdict,
                hint="GRAPHGUARD_ON_MISMATCH=degrade runs such steps without that graph",
            )
        if self._options.on_mismatch is not OnMismatch.EAGER and for_decodes(chosen):
            other = asking.without_decodes()
            graph = self._graphs.ids.get(other)
            found = guard.check(graph, batch)
            if other in self._graphs.ungraphed:
                return other, None, Verdict(Action.EAGER, why)
            if found.action <= _PAD and graph not in guard.quarantined:
                return other, graph, Verdict(found.action, why, graph)
        return asking.eagerly(chosen), None, Verdict(Action.EAGER, why)


def batch_captured_for(choice: Choice) -> BatchDescriptor:
    """Return the descriptor that a graph of vLLM stands for.

    A uniform full graph is for decodes of the same number of query tokens each. Every other one
    takes any requests of that many tokens.
    """
    descriptor: Descriptor = choice.descriptor
    num_reqs, query_len = descriptor.num_reqs, descriptor.uniform_token_count
    if choice.mode == _FULL and num_reqs and num_reqs * (query_len or 0) == descriptor.num_tokens:
        return BatchDescriptor.of(num_reqs, query_len)
    return BatchDescriptor.tokens(descriptor.num_tokens)


def key_of(role: str, choice: Choice, batch: BatchDescriptor, name: str) -> GraphKey:
    """Return the family of a graph of vLLM."""
    descriptor: Descriptor = choice.descriptor
    mode = GraphMode.FULL if choice.mode == _FULL else GraphMode.PIECEWISE
    words = [name] if name else []
    if mode is GraphMode.FULL and batch.num_reqs == 0:
        bound = getattr(descriptor, "max_query_len", None)
        words.append("mixed" if bound is None else f"up to {bound} tokens a request")
    for attribute, least, unit in _VARIANTS:
        if (count := getattr(descriptor, attribute, least)) > least:
            words.append(f"{count} {unit}")
    return GraphKey(role, mode, ", ".join(words))


_VARIANTS = (
    ("num_active_loras", 0, "LoRA"),
    ("num_ubatches", 1, "micro-batches"),
    ("num_speculative_tokens", 0, "drafts"),
)
"""Fields of a descriptor that tell graphs of one size apart, and their values where they do not."""
