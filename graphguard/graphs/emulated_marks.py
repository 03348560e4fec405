"""Marks of an emulated graph: its replay passes one when a collective is over."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

from graphguard.breadcrumbs.process import wanted
from graphguard.graphs.emulated_steps import Step, replay_with_marks

if TYPE_CHECKING:
    from graphguard.breadcrumbs.marking import Marks


class ReplayMarks:
    """The marks of one graph, and which step passes which of them.

    Args:
        marks: The marks.
        steps: Numbers of the steps that are collectives, in order.
    """

    def __init__(self, marks: Marks, steps: Sequence[int]) -> None:
        self._marks = marks
        self._mark_of_step = {step: mark for mark, step in enumerate(steps)}
        self._pass = marks.native.passed

    @classmethod
    def of(cls, graph: object, steps: Sequence[Step]) -> ReplayMarks | None:
        """Take marks for what a graph has captured; None if it has no collectives or no marks."""
        if not wanted():
            return None
        numbers = [number for number, step in enumerate(steps) if step.communicates]
        if not numbers:
            return None
        # Not needed by programs without marks.
        from graphguard.breadcrumbs.marking import mark_emulated

        marks = mark_emulated(graph, [steps[number].describe() for number in numbers])
        return None if marks is None else cls(marks, numbers)

    def replay(self, steps: Sequence[Step]) -> None:
        """Replay the graph, and pass a mark whenever a collective is over."""
        self._marks.launch()
        try:
            replay_with_marks(steps, self._passed)
        except BaseException:
            # It has come to its end, if not to that of its steps.
            self._marks.native.settle()
            raise

    def release(self, graph: object) -> None:
        """Let go of the marks: the graph is reset or captured again."""
        from graphguard.breadcrumbs.marking import release

        release(graph)

    def _passed(self, step: int) -> None:
        self._pass(self._mark_of_step[step])
