"""The audit at start-up: what of an engine is known to have done harm, before it serves.

:func:`graphguard.vllm.startup.reading.engine_facts` reads an engine; the rules are pure functions
of what it read. :data:`graphguard.vllm.startup.catalogue.RULES` has all of them with their words.
"""

from __future__ import annotations

from collections.abc import Callable

from graphguard.vllm.startup import (
    all_reduce,
    capture_sizes,
    drafter,
    nccl,
    pools,
    sparse_attention,
)
from graphguard.vllm.startup.facts import EngineFacts
from graphguard.vllm.startup.findings import Severity, StartupFinding

__all__ = ["EngineFacts", "Severity", "StartupFinding", "audit_engine"]

_CHECKS: tuple[Callable[[EngineFacts], list[StartupFinding]], ...] = (
    capture_sizes.uniform_sizes,
    capture_sizes.piecewise_sizes,
    all_reduce.custom_all_reduces,
    all_reduce.fused_all_reduces,
    sparse_attention.negative_lengths,
    sparse_attention.persistent_topk,
    nccl.nccl_versions,
    pools.shared_pools,
    drafter.eager_drafters,
)
_ORDER = list(Severity)


def audit_engine(facts: EngineFacts) -> list[StartupFinding]:
    """Check an engine against every rule, when its graphs are captured.

    Returns:
        The findings, worst first.
    """
    findings = [finding for check in _CHECKS for finding in check(facts)]
    return sorted(findings, key=lambda finding: _ORDER.index(finding.severity))
