"""What is published of a model that is not run in a step: the others may be waiting for it."""

from __future__ import annotations

from typing import TYPE_CHECKING, NamedTuple

from graphguard.batch import BatchDescriptor
from graphguard.signature import GraphKey, Signature

if TYPE_CHECKING:
    from graphguard.agreed_steps import AgreedSteps
    from graphguard.agreement.group import Agreement
    from graphguard.blackbox.writer import BlackBox


class _LeftOut(NamedTuple):
    """Stands for the graphs of a model that is not run."""

    key: GraphKey
    signatures: tuple[Signature, ...] = ()


def leaving_out(key: GraphKey, agreement: Agreement, box: BlackBox | None) -> AgreedSteps:
    """Return the steps of a model that is not run, by its key, in a group."""
    from graphguard.agreed_steps import AgreedSteps

    graphs = _LeftOut(GraphKey(key.role, key.mode, "left out"))
    return AgreedSteps(agreement, graphs, box, fits=never, runs_eagerly=False, vote_seconds=None)


def never(graph: int, batch: BatchDescriptor, inputs: object) -> None:
    """Say that no graph serves a batch."""
    del graph, batch, inputs
