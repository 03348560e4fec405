"""All-reduces that are not NCCL's: what must be in order before their graphs are replayed."""

from __future__ import annotations

from graphguard.vllm.startup.catalogue import finding
from graphguard.vllm.startup.facts import EngineFacts
from graphguard.vllm.startup.findings import StartupFinding


def custom_all_reduces(facts: EngineFacts) -> list[StartupFinding]:
    """Find graphs whose buffers the other ranks do not know. Ask when capturing is over."""
    found = [
        finding(
            "unregistered-all-reduce-buffers",
            f"the custom all-reduce of group {one.group} "
            + (
                "is still in its capture"
                if one.capturing
                else f"has {one.unregistered} buffers of graphs that are not registered"
            ),
            f"group {one.group}: capturing={one.capturing}, unregistered={one.unregistered}",
        )
        for one in facts.all_reduces
        if one.capturing or one.unregistered
    ]
    if facts.breakable and facts.all_reduces and facts.graphs:
        groups = ", ".join(one.group for one in facts.all_reduces)
        found.append(
            finding(
                "breakable-graphs-with-custom-all-reduce",
                f"breakable graphs hold the custom all-reduce of {groups}",
                f"vLLM {facts.vllm_version}",
            )
        )
    return found


def fused_all_reduces(facts: EngineFacts) -> list[StartupFinding]:
    """Note FlashInfer's fused all-reduce where it is replayed in piecewise graphs."""
    if not facts.fused_all_reduce or "PIECEWISE" not in (facts.mixed_mode, facts.decode_mode):
        return []
    return [
        finding(
            "fused-all-reduce-in-piecewise-graphs",
            "FlashInfer's fused all-reduce and norm is part of piecewise graphs",
            "pass_config.fuse_allreduce_rms=True",
            f"flashinfer {facts.flashinfer_version or 'of unknown version'}",
        )
    ]
