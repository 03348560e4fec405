"""What the data-parallel ranks of a model of experts launch, compared launch by launch.

Their experts are spread over all of them, so that each launch holds collectives of all. Before it
vLLM makes them agree, on the CPU, on a mode and on a number of tokens; each then looks for a graph
of its own. What it found is published here, once for each such agreement: of dummy batches, which
idle ranks run to keep up, as well as of steps. The agreement itself holds the ranks in step, so
none of them can be a launch ahead.

What must be equal is what the collectives see: that it is a graph, of which mode, for how many
tokens. Requests, phase and adapters may differ, and where no graph is launched the tokens may too:
then vLLM's collectives take other sizes from each rank.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import TYPE_CHECKING

from graphguard.agreed_steps import AgreedSteps
from graphguard.batch import BatchDescriptor
from graphguard.environment import Mode
from graphguard.log import logger
from graphguard.signature import GraphKey, GraphMode, Signature
from graphguard.verdict import Action, Reason, Verdict

if TYPE_CHECKING:
    from graphguard.agreement.group import Agreement
    from graphguard.blackbox.writer import BlackBox
    from graphguard.vllm.model_guard import ModelGuard

_NO_GRAPH = "NONE"
_EAGER = Verdict(Action.EAGER, Reason.NO_GRAPH)
_ANY_TOKENS = BatchDescriptor.tokens(0)


class DataParallelSteps:
    """The launches of this rank among those of the other data-parallel ranks.

    Args:
        agreement: The data-parallel ranks.
        box: The black box, if there is one.
    """

    def __init__(self, agreement: Agreement, box: BlackBox | None) -> None:
        self.agreement = agreement
        self._box = box
        self._enforces = agreement.mode is Mode.ENFORCE
        self._models: dict[str, _Launches] = {}
        self._said = False

    def seal(self, guards: Iterable[ModelGuard]) -> bool:
        """Compare what all ranks captured, and get ready to compare what they launch.

        Returns:
            Whether launches can be compared.

        Raises:
            AgreementError: When enforcing, if captures differ or a rank does not come in time.
            LedgerError: When enforcing, if there can be no ledger.
        """
        for guard in guards:
            self.agreement.seal(guard.key, guard.signatures)
            if self.agreement.ledger is None:
                return False
            launches = self._of(guard.key.role)
            for choice in guard.choices:
                # What another rank launches must have a name here, too.
                launches.graph(choice.mode, getattr(choice.descriptor, "num_tokens", 0))
        return self.agreement.join()

    def launching(self, role: str, mode: str, num_tokens: int, padded: int) -> None:
        """Publish what vLLM is about to launch here, and compare it with the other ranks.

        Args:
            role: ``target`` or ``drafter``.
            mode: The name of vLLM's mode: ``FULL``, ``PIECEWISE`` or ``NONE``.
            num_tokens: Tokens of this rank.
            padded: Tokens that are run, after the ranks have agreed.

        Raises:
            RanksDiverged: When enforcing, if another rank launches something else.
            LedgerError: When enforcing, if the ledger cannot be trusted.
        """
        if self._enforces:
            self._publish(role, mode, num_tokens, padded)
            return
        try:
            self._publish(role, mode, num_tokens, padded)
        except Exception as error:  # noqa: BLE001 - nothing of this may reach the engine
            self.not_compared(role, error)

    def not_compared(self, role: str, error: Exception) -> None:
        """Say, once, that a launch could not be compared."""
        if not self._said:
            self._said = True
            logger().warning(
                "launches of %s are not compared with the ranks of %s: %r; this is said once",
                role,
                self.agreement.name,
                error,
            )

    def _publish(self, role: str, mode: str, num_tokens: int, padded: int) -> None:
        launches = self._of(role)
        graph, verdict, batch = None, _EAGER, _ANY_TOKENS
        if mode != _NO_GRAPH:
            graph = launches.graph(mode, padded)
            exact = padded == num_tokens
            verdict = Verdict(
                Action.REPLAY if exact else Action.PAD,
                Reason.EXACT if exact else Reason.PADDED,
                graph,
            )
            batch = BatchDescriptor.tokens(num_tokens)
        if self._enforces:
            launches.steps.decide(verdict, batch, None)
        else:
            launches.steps.observe(graph, verdict.reason, batch)

    def _of(self, role: str) -> _Launches:
        launches = self._models.get(role)
        if launches is None:
            launches = self._models[role] = _Launches(role, self.agreement, self._box)
        return launches


class _Launches:
    """What data-parallel ranks may launch of a model; stands for its graphs in the ledger."""

    def __init__(self, role: str, agreement: Agreement, box: BlackBox | None) -> None:
        self.key = GraphKey(role)
        self.signatures: list[Signature] = []
        self._graphs: dict[tuple[str, int], int] = {}
        # No rank can do what another one does: vLLM has settled everything by now.
        self.steps = AgreedSteps(
            agreement, self, box, fits=_never, runs_eagerly=False, vote_seconds=None
        )

    def graph(self, mode: str, num_tokens: int) -> int:
        """Return the number of all graphs of a mode for that many tokens, whatever else differs."""
        graph = self._graphs.get((mode, num_tokens))
        if graph is None:
            graph = self._graphs[mode, num_tokens] = len(self.signatures)
            key = GraphKey(self.key.role, GraphMode(mode.lower()))
            self.signatures.append(Signature(key, BatchDescriptor.tokens(num_tokens)))
            self.steps.add_graphs()
        return graph


def _never(graph: int, batch: BatchDescriptor, inputs: object) -> None:
    del graph, batch, inputs
