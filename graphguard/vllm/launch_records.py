"""What is written down of a launch beside the ledger of the ranks: black box and decisions."""

from __future__ import annotations

import itertools
from typing import TYPE_CHECKING

from graphguard.batch import BatchDescriptor
from graphguard.verdict import Reason, Verdict

if TYPE_CHECKING:
    from graphguard._core import BlackBox as Ring
    from graphguard.agreed_steps import AgreedSteps
    from graphguard.decisions import DecisionLog
    from graphguard.vllm.model_graphs import ModelGraphs

_NO_GROUP = 0xFFFF
# A flag of graphguard.blackbox.events, which is not loaded before there is a black box.
_ENFORCE = 2

_steps = itertools.count(1)


def record_alone(  # noqa: PLR0917 - what a record holds
    ring: Ring,
    role_name: int,
    graphs: ModelGraphs,
    verdict: Verdict,
    graph: int | None,
    batch: BatchDescriptor,
) -> None:
    """Record a step that no other rank is compared with; with others, the ledger records it."""
    digest = 0 if graph is None else int(graphs.signatures[graph].shared_digest[:16], 16)
    ring.check(
        role_name,
        _NO_GROUP,
        next(_steps),
        digest,
        batch.num_reqs,
        batch.query_len,
        batch.num_tokens,
        batch.phase,
        verdict.action,
        verdict.reason,
        _ENFORCE if graphs.enforces else 0,
    )


def write_decision(  # noqa: PLR0917 - what a decision is about
    decisions: DecisionLog,
    agreed: AgreedSteps | None,
    graphs: ModelGraphs,
    verdict: Verdict,
    graph: int | None,
    batch: BatchDescriptor,
) -> None:
    """Write what was decided of a step, with the number that the first group gives to it."""
    launched = verdict.graph if verdict.reason is Reason.ADOPTED else graph
    decisions.decision(
        graphs.key.role,
        0 if agreed is None else agreed.step,
        batch,
        verdict.action,
        verdict.reason,
        graph=None if launched is None else graphs.signatures[launched],
        group=None if agreed is None else agreed.agreement.name,
    )
