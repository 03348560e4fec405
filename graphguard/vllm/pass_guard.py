"""The guard of a model on the V2 runner, which may run in passes with graphs of their own."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

from graphguard.batch import BatchDescriptor
from graphguard.environment import Mode
from graphguard.session import Session
from graphguard.verdict import Verdict
from graphguard.vllm.model_guard import ModelGuard

if TYPE_CHECKING:
    from graphguard.agreement.group import Agreement
    from graphguard.blackbox.writer import BlackBox


class PassGuard(ModelGuard):
    """The guard of a model that may run in several passes.

    Attributes:
        usable: The graphs that the manager of the pass has: no other one may be adopted.
        runs_as: What the batch of the step is checked as, if not as itself: vLLM runs some
            prefills as decodes, on purpose.
    """

    def __init__(self, role: str, mode: Mode, session: Session) -> None:
        super().__init__(role, mode, session)
        self.usable: frozenset[int] = frozenset()
        self.runs_as: BatchDescriptor | None = None
        self._adopts = True

    def check(self, graph: int | None, batch: BatchDescriptor) -> Verdict:
        """Say whether a graph fits a batch; see :meth:`ModelGuard.check`."""
        return super().check(graph if graph in self.usable else None, self.runs_as or batch)

    def seal(self, agreements: Sequence[Agreement], box: BlackBox | None) -> None:
        """Compare what all ranks captured; see :meth:`ModelGuard.seal`."""
        super().seal(agreements, box)
        self._let_adopt()

    @property
    def adopts(self) -> bool:
        """Whether this rank may do what another one has decided.

        It may not once data-parallel ranks have settled what they launch, which would not learn it.
        """
        return self._adopts

    @adopts.setter
    def adopts(self, adopts: bool) -> None:
        if adopts is not self._adopts:
            self._adopts = adopts
            self._let_adopt()

    def _let_adopt(self) -> None:
        for steps in self._agreed:
            steps.adopts = self._adopts
