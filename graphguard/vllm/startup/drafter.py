"""Drafters without graphs."""

from __future__ import annotations

from graphguard.vllm.startup.catalogue import finding
from graphguard.vllm.startup.facts import EngineFacts
from graphguard.vllm.startup.findings import StartupFinding


def eager_drafters(facts: EngineFacts) -> list[StartupFinding]:
    """Say that a drafter runs eagerly, and why, where the target has graphs."""
    drafter = facts.drafter
    if drafter is None or (facts.decode_mode, facts.mixed_mode) == ("NONE", "NONE"):
        return []
    reasons: list[str] = []
    if drafter.enforce_eager:
        reasons.append("enforce_eager is set in its configuration")
    # A V2 drafter has FULL graphs of its own and needs neither.
    if facts.runner == "v1":
        if facts.mixed_mode == "NONE":
            reasons.append(
                "its graphs are piecewise ones, and the mode has none (FULL_DECODE_ONLY)"
            )
        if drafter.capturable is False:
            reasons.append(f"{drafter.model or 'its model'} is not compiled by vLLM")
    if not reasons:
        return []
    return [
        finding(
            "eager-drafter",
            f"the drafter ({drafter.method}) runs eagerly: {'; '.join(reasons)}",
            f"decode mode {facts.decode_mode}, mixed mode {facts.mixed_mode}",
        )
    ]
