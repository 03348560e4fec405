"""The rules of the check once more, in plain Python: the yardstick for the native table.

Written from the table in csrc/core/rules.h and from the design, without calling the native code.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

from graphguard.verdict import Action, Phase, Reason


class Shape(NamedTuple):
    """A batch, or the batch that a graph was recorded for."""

    num_reqs: int
    query_len: int
    num_tokens: int
    phase: Phase

    @property
    def uniform(self) -> bool:
        return self.num_reqs * self.query_len == self.num_tokens


class Graph(NamedTuple):
    family: int
    shape: Shape


class Answer(NamedTuple):
    action: Action
    reason: Reason
    graph: int | None


def fit(piecewise: bool, graph: Shape, batch: Shape) -> Reason:
    """Say how one batch fits one graph."""
    return fit_piecewise(graph, batch) if piecewise else fit_full(graph, batch)


def fit_piecewise(graph: Shape, batch: Shape) -> Reason:
    if batch.num_tokens > graph.num_tokens:
        return Reason.TOO_MANY_TOKENS
    return Reason.EXACT if batch.num_tokens == graph.num_tokens else Reason.PADDED


def fit_full(graph: Shape, batch: Shape) -> Reason:
    same_phase = batch.phase == graph.phase
    if batch[:3] == graph[:3]:
        reason = Reason.EXACT if same_phase else Reason.WRONG_PHASE
    elif not (batch.uniform and graph.uniform):
        reason = Reason.NOT_UNIFORM
    elif batch.query_len != graph.query_len:
        reason = Reason.QUERY_LENGTH
    elif batch.num_reqs > graph.num_reqs:
        reason = Reason.TOO_MANY_REQUESTS
    elif not same_phase:
        reason = Reason.WRONG_PHASE
    else:
        reason = Reason.PADDED if batch.phase == Phase.DECODE else Reason.NOT_DECODE
    return reason


def padding(piecewise: bool, graph: Shape, batch: Shape) -> int:
    """Count the padded slots: tokens of a piecewise graph, requests of a full one."""
    if piecewise:
        return graph.num_tokens - batch.num_tokens
    return graph.num_reqs - batch.num_reqs


def answer(piecewise: Sequence[bool], graphs: Sequence[Graph], family: int, batch: Shape) -> Answer:
    """Decide about a batch by asking every graph of its family.

    The best reason wins; among graphs that fit alike, the least padding; then the first inserted.
    """
    found = [
        (fit(piecewise[family], graph.shape, batch), index)
        for index, graph in enumerate(graphs)
        if graph.family == family
    ]
    best = min((reason for reason, _ in found), default=Reason.NO_GRAPH)
    if best not in (Reason.EXACT, Reason.PADDED):
        return Answer(Action.EAGER, best, None)
    chosen = min(
        (padding(piecewise[family], graphs[index].shape, batch), index)
        for reason, index in found
        if reason == best
    )[1]
    return Answer(Action.REPLAY if best == Reason.EXACT else Action.PAD, best, chosen)
