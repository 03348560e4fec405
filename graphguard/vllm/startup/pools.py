"""Memory pools that graphs share."""

from __future__ import annotations

from graphguard.vllm.startup.catalogue import finding
from graphguard.vllm.startup.facts import EngineFacts, PoolFact
from graphguard.vllm.startup.findings import StartupFinding


def shared_pools(facts: EngineFacts) -> list[StartupFinding]:
    """Say where target and drafter capture into one pool, and what that does in which runner."""
    drafter = facts.drafter
    if facts.runner == "v1" and drafter and drafter.capturable is False:
        return []
    by_pool: dict[str, list[PoolFact]] = {}
    for pool in facts.pools:
        by_pool.setdefault(pool.pool, []).append(pool)
    return [
        _finding(facts, shared)
        for shared in by_pool.values()
        if {"target", "drafter"} <= {pool.role for pool in shared}
    ]


def _finding(facts: EngineFacts, shared: list[PoolFact]) -> StartupFinding:
    evidence = tuple(f"{one.role} {one.family}: pool {one.pool}" for one in shared)
    if not shared[0].is_global:
        return finding(
            "pool-shared-by-target-and-drafter",
            "graphs of target and drafter share a pool that is not vLLM's global one",
            *evidence,
        )
    if facts.runner == "v1" and facts.drafter is not None and facts.drafter.padded:
        return finding(
            "prompt-logprobs-from-shared-pool",
            "the drafter runs between the target and its prompt log probabilities, and their "
            "graphs share one pool",
            *evidence,
        )
    return finding(
        "shared-graph-pool", "graphs of target and drafter share vLLM's global pool", *evidence
    )
