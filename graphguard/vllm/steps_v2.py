"""A step of the V2 runner or its speculator: what it wants, what vLLM chose, and what is done.

What graphguard changes, it changes where vLLM first asks a graph manager, in
``dispatch_cg_and_sync_dp`` and before data-parallel ranks agree on their batch. A step that is kept
out of the graphs for decodes is shown to those ranks as vLLM shows a batch that is not uniform, so
that all of them keep out of them.

What ranks compare is what vLLM launches, so what it dispatches last. With data parallelism that is
after the agreement on the batch, of which nothing may be changed: a tensor-parallel rank that would
launch something else than its peers is refused then, where it would follow them otherwise.
"""

from __future__ import annotations

import functools
from typing import Any, NamedTuple

from graphguard.batch import BatchDescriptor
from graphguard.errors import GuardMismatch
from graphguard.session import Session
from graphguard.verdict import Action, Reason, Verdict
from graphguard.vllm.batches import Batches
from graphguard.vllm.captures import Choice
from graphguard.vllm.captures_v2 import ManagerCaptures
from graphguard.vllm.dispatching_v2 import Answered, Asking, Descriptor, Request, for_decodes
from graphguard.vllm.families_v2 import batch_captured_for, key_of
from graphguard.vllm.options import OnMismatch, Options
from graphguard.vllm.padding_views import Extent
from graphguard.vllm.pass_guard import PassGuard

_PAD = Action.PAD
_ADOPTED = Reason.ADOPTED
_EAGER = Verdict(Action.EAGER, Reason.NO_GRAPH)
_FULL, _NONE = "FULL", "NONE"


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
        batch: Returns the descriptor of a batch.
        in_step: Whether a step runs that is checked, and no dummy run.
        held_back: Whether graphguard has kept the last step out of the graphs for decodes.
        padded: How a full graph that is about to be launched is padded, or None.
    """

    def __init__(self, guard: PassGuard, options: Options) -> None:
        self.guard = guard
        self.batch = Batches().of
        self.in_step = False
        self.held_back = False
        self.padded: Extent | None = None
        self._no_graphs: Any = None
        self._options = options
        self._passes: dict[str, _Graphs] = {}
        self._graphs = _NO_GRAPHS
        self._tied = self._changed = False
        self._decided = _EAGER

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

    def pass_of(self, graph: int) -> str:
        """Return the pass that a graph belongs to."""
        return next(name for name, graphs in self._passes.items() if graph in graphs.usable)

    def dispatch(
        self,
        request: Request,
        batch: BatchDescriptor,
        name: str = "",
        *,
        tied: bool = False,
        runs_as: BatchDescriptor | None = None,
    ) -> tuple[Descriptor, Any]:
        """Dispatch a step: vLLM's choice if it fits and all ranks make it.

        Args:
            request: What vLLM asks for.
            batch: What the step runs.
            name: The pass of the manager that is asked.
            tied: Whether the step may use no graph for decodes because the one whose buffers it
                reads does not.
            runs_as: What the batch is checked as, if not as itself.
        """
        self._graphs = self._passes[name]
        self.guard.usable = self._graphs.usable
        self.guard.runs_as = runs_as
        self.padded = None
        if self.guard.enforces:
            self._tied, self._changed = tied, False
            return self._enforce(request, batch)
        result = request.unguarded()
        try:
            self._observe(request.refined(result[0]), batch)
        except Exception as error:  # noqa: BLE001 - nothing of this may reach the engine
            self.guard.say_once("step", f"{self.guard.key} {batch} is not checked: {error!r}")
        return result

    def _observe(self, launched: Descriptor, batch: BatchDescriptor) -> None:
        guard, graph = self.guard, self._graphs.ids.get(launched)
        verdict = guard.check(graph, batch)
        if graph is not None and verdict.action > _PAD:
            guard.say_once(verdict.reason.name, guard.misfit(verdict, graph, batch))
        guard.agree(verdict, graph, batch)
        self._note_padding(verdict, launched, batch)

    def _enforce(self, request: Request, batch: BatchDescriptor) -> tuple[Descriptor, Any]:
        alone = request.dp_size == 1
        self.guard.adopts = alone
        asking = Asking(request, functools.partial(self._decide, batch, alone), self._no_graphs)
        result = request.answered_by(asking, uniform=True, alone=True)
        if asking.decided is None:
            # vLLM runs it eagerly without asking.
            self.held_back = False
            result = result if alone else request.unguarded()
            self.guard.agree(_EAGER, None, batch)
            return result
        self.held_back = self._changed and not for_decodes(asking.decided)
        if alone:
            return result
        # What data-parallel ranks have agreed on before may not be changed any more.
        uniform = not self.held_back or request.more.get("dp_sync_state") is not None
        answered = Answered(request.manager, asking.decided)
        result = request.answered_by(answered, uniform=uniform, alone=False)
        self._settled(request.refined(result[0]), asking.decided, batch)
        return result

    def leave_out(self, batch: BatchDescriptor) -> None:
        """Publish that the model is not run in a step."""
        self.guard.leave_out(batch)

    def _decide(self, batch: BatchDescriptor, alone: bool, asking: Asking) -> Descriptor:
        """Return the descriptor that a step runs with, for all that this rank knows."""
        guard, chosen = self.guard, asking.choice()
        if self._tied and for_decodes(chosen):
            chosen, self._changed = asking.without_decodes(), True
        graph = self._graphs.ids.get(chosen)
        verdict = guard.check(graph, batch)
        if self._refuses(chosen, graph, verdict):
            chosen, graph, verdict = self._other(asking, batch, chosen, verdict)
            self._changed = True
            guard.degraded(verdict)
        self._decided = verdict
        if not alone:
            return chosen
        agreed = guard.agree(verdict, graph, batch)
        if agreed.reason is _ADOPTED:
            self._changed = True
            if agreed.graph is None or agreed.action > _PAD:
                return asking.eagerly(chosen)
            adopted: Choice = guard.choices[agreed.graph]
            chosen = adopted.descriptor
        self._note_padding(agreed, chosen, batch)
        return chosen

    def _settled(self, launched: Descriptor, decided: Descriptor, batch: BatchDescriptor) -> None:
        """Compare what is launched now that data-parallel ranks have agreed on it."""
        guard, graph, verdict = self.guard, self._graphs.ids.get(launched), self._decided
        if launched != decided and (graph is not None or verdict.action <= _PAD):
            verdict = guard.check(graph, batch)
            if self._refuses(launched, graph, verdict):
                guard.say_once(
                    "settled",
                    f"{guard.key} {batch}: data-parallel ranks have settled on {launched}, which "
                    f"graphguard would have kept this rank out of ({verdict})",
                )
            if graph is not None and verdict.action > _PAD:
                verdict = Verdict(Action.REPLAY, verdict.reason, graph)
        guard.agree(verdict, graph, batch)
        self._note_padding(verdict, launched, batch)

    def _note_padding(self, verdict: Verdict, launched: Descriptor, batch: BatchDescriptor) -> None:
        if verdict.action is _PAD and launched.cg_mode.name == _FULL and launched.num_reqs:
            self.padded = Extent(
                batch.num_reqs,
                launched.num_reqs,
                batch.num_tokens,
                launched.num_tokens,
                launched.uniform_token_count or 0,
            )

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
