"""Versions of NCCL with which replayed collectives were reported to hang."""

from __future__ import annotations

from graphguard.vllm.startup.catalogue import finding
from graphguard.vllm.startup.facts import EngineFacts
from graphguard.vllm.startup.findings import StartupFinding

_REPORTED = 22_809
_ENDED = 23_004


def nccl_versions(facts: EngineFacts) -> list[StartupFinding]:
    """Find a version that hangs between nodes. There is no report of one without graphs."""
    version = facts.nccl_version
    has_graphs = (facts.decode_mode, facts.mixed_mode) != ("NONE", "NONE")
    if version is None or facts.num_nodes < 2 or not has_graphs:
        return []
    if not _REPORTED <= version < _ENDED:
        return []
    rule = "nccl-replay-hangs" if version == _REPORTED else "nccl-not-known-good"
    return [
        finding(
            rule,
            f"graphs are replayed on {facts.num_nodes} nodes with NCCL {version_text(version)}",
            f"nccl={version}",
            f"nodes={facts.num_nodes}",
        )
    ]


def version_text(version: int) -> str:
    """Return NCCL's integer as text: 22809 is 2.28.9."""
    return f"{version // 10_000}.{version // 100 % 100}.{version % 100}"
