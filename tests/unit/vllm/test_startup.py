"""Every rule of the audit at start-up, with an engine that breaks it and engines that do not."""

from __future__ import annotations

from typing import Any

import pytest

from graphguard.vllm.startup import EngineFacts, Severity, audit_engine
from graphguard.vllm.startup.catalogue import RULES
from graphguard.vllm.startup.facts import AllReduceFact, DrafterFact, GraphFact, PoolFact
from graphguard.vllm.startup.nccl import version_text

FULL_AND_PIECEWISE: dict[str, Any] = {"decode_mode": "FULL", "mixed_mode": "PIECEWISE"}
PIECEWISE: dict[str, Any] = {"decode_mode": "PIECEWISE", "mixed_mode": "PIECEWISE"}
FULL_DECODE_ONLY: dict[str, Any] = {"decode_mode": "FULL"}
MTP = DrafterFact("mtp", "DeepSeekMTP", capturable=True)
PADDED_MTP = DrafterFact("mtp", "DeepSeekMTP", capturable=True, padded=True)
GLOBAL_POOL = (
    PoolFact("target", "CUDAGraphWrapper", "(0, 1)", True),
    PoolFact("drafter", "CUDAGraphWrapper", "(0, 1)", True),
)
OWN_POOL = tuple(PoolFact(pool.role, pool.family, "(0, 2)", False) for pool in GLOBAL_POOL)
CUSTOM = (AllReduceFact("tp:0", unregistered=0),)
DSA: dict[str, Any] = {
    **FULL_AND_PIECEWISE,
    "sparse_topk": 2048,
    "num_speculative_tokens": 2,
    "vllm_version": "0.20.1",
}
HOPPER: dict[str, Any] = {**FULL_AND_PIECEWISE, "sparse_topk": 2048, "capability": (9, 0)}
NODES: dict[str, Any] = {**FULL_AND_PIECEWISE, "num_nodes": 2}
UNIFORM = GraphFact("target", "FULL", 32, 16, 2)

BREAKS: list[tuple[str, dict[str, Any]]] = [
    (
        "piecewise-size-not-aligned",
        {**PIECEWISE, "num_speculative_tokens": 3, "capture_sizes": (1, 2, 4, 8)},
    ),
    (
        "piecewise-size-not-aligned",
        {
            **PIECEWISE,
            "num_speculative_tokens": 1,
            "capture_sizes": (2,),
            "graphs": (GraphFact("target", "PIECEWISE", 3),),
        },
    ),
    (
        "uniform-size-not-aligned",
        {**FULL_AND_PIECEWISE, "graphs": (GraphFact("target", "FULL", 15, 7, 2),)},
    ),
    (
        "uniform-size-not-aligned",
        {**FULL_AND_PIECEWISE, "graphs": (GraphFact("target", "FULL", 32, 15, 2),)},
    ),
    ("unregistered-all-reduce-buffers", {"all_reduces": (AllReduceFact("tp:0", False, 12),)}),
    ("unregistered-all-reduce-buffers", {"all_reduces": (AllReduceFact("tp:0", True, None),)}),
    (
        "breakable-graphs-with-custom-all-reduce",
        {"breakable": True, "all_reduces": CUSTOM, "graphs": (UNIFORM,)},
    ),
    ("fused-all-reduce-in-piecewise-graphs", {**FULL_AND_PIECEWISE, "fused_all_reduce": True}),
    (
        "prompt-logprobs-from-shared-pool",
        {**FULL_AND_PIECEWISE, "runner": "v1", "pools": GLOBAL_POOL, "drafter": PADDED_MTP},
    ),
    (
        "shared-graph-pool",
        {**FULL_AND_PIECEWISE, "runner": "v2", "pools": GLOBAL_POOL, "drafter": PADDED_MTP},
    ),
    (
        "shared-graph-pool",
        {**FULL_AND_PIECEWISE, "runner": "v1", "pools": GLOBAL_POOL, "drafter": MTP},
    ),
    (
        "pool-shared-by-target-and-drafter",
        {**FULL_AND_PIECEWISE, "runner": "v2", "pools": OWN_POOL, "drafter": PADDED_MTP},
    ),
    ("nccl-replay-hangs", {**NODES, "nccl_version": 22809}),
    ("nccl-not-known-good", {**NODES, "nccl_version": 22901}),
    ("eager-drafter", {**FULL_DECODE_ONLY, "runner": "v1", "drafter": MTP}),
    (
        "eager-drafter",
        {
            **FULL_AND_PIECEWISE,
            "runner": "v1",
            "drafter": DrafterFact("mtp", "MiMoMTP", capturable=False),
        },
    ),
    (
        "eager-drafter",
        {
            **FULL_AND_PIECEWISE,
            "runner": "v2",
            "drafter": DrafterFact("mtp", enforce_eager=True),
        },
    ),
    ("negative-padded-lengths", DSA),
    ("negative-padded-lengths", {**DSA, "vllm_version": "0.27.1"}),
    ("negative-padded-lengths", {**DSA, "vllm_version": "0.29.0", "indexer_clamps": False}),
    ("persistent-topk-on-hopper", {**HOPPER, "vllm_version": "0.20.1"}),
    ("persistent-topk-on-hopper", {**HOPPER, "vllm_version": "0.26.0", "sparse_topk": 1024}),
]

KEEPS: list[tuple[str, dict[str, Any]]] = [
    ("piecewise-size-not-aligned", {**PIECEWISE, "capture_sizes": (1, 2, 4, 8)}),
    (
        "piecewise-size-not-aligned",
        {**PIECEWISE, "num_speculative_tokens": 3, "capture_sizes": (4, 8)},
    ),
    (
        "piecewise-size-not-aligned",
        {**FULL_AND_PIECEWISE, "num_speculative_tokens": 1, "capture_sizes": (1, 3)},
    ),
    ("uniform-size-not-aligned", {**FULL_AND_PIECEWISE, "graphs": (UNIFORM,)}),
    (
        "uniform-size-not-aligned",
        {**FULL_AND_PIECEWISE, "graphs": (GraphFact("target", "FULL", 15, 15, 0),)},
    ),
    ("unregistered-all-reduce-buffers", {"all_reduces": CUSTOM}),
    ("unregistered-all-reduce-buffers", {"all_reduces": (AllReduceFact("tp:0"),)}),
    ("breakable-graphs-with-custom-all-reduce", {"breakable": True, "graphs": (UNIFORM,)}),
    ("breakable-graphs-with-custom-all-reduce", {"all_reduces": CUSTOM, "graphs": (UNIFORM,)}),
    ("fused-all-reduce-in-piecewise-graphs", {**FULL_DECODE_ONLY, "fused_all_reduce": True}),
    ("fused-all-reduce-in-piecewise-graphs", FULL_AND_PIECEWISE),
    (
        "prompt-logprobs-from-shared-pool",
        {
            **FULL_AND_PIECEWISE,
            "runner": "v1",
            "pools": GLOBAL_POOL,
            "drafter": DrafterFact("mtp", "MiMoMTP", capturable=False, padded=True),
        },
    ),
    ("shared-graph-pool", {"runner": "v2", "pools": (GLOBAL_POOL[0], OWN_POOL[1])}),
    ("pool-shared-by-target-and-drafter", {"runner": "v2", "pools": (OWN_POOL[0],) * 2}),
    ("nccl-replay-hangs", {**NODES, "nccl_version": 22809, "num_nodes": 1}),
    ("nccl-replay-hangs", {"num_nodes": 2, "nccl_version": 22809}),
    ("nccl-replay-hangs", {**NODES, "nccl_version": 23004}),
    ("nccl-not-known-good", {**NODES, "nccl_version": 23004}),
    ("nccl-not-known-good", {**NODES, "nccl_version": 22703}),
    ("eager-drafter", {**FULL_AND_PIECEWISE, "runner": "v1", "drafter": MTP}),
    ("eager-drafter", {**FULL_DECODE_ONLY, "runner": "v2", "drafter": MTP}),
    ("eager-drafter", {"runner": "v1", "drafter": MTP}),
    ("negative-padded-lengths", {**DSA, "vllm_version": "0.33.0"}),
    ("negative-padded-lengths", {**DSA, "vllm_version": "0.28.0"}),
    ("negative-padded-lengths", {**DSA, "vllm_version": None}),
    ("negative-padded-lengths", {**DSA, "indexer_clamps": True}),
    ("negative-padded-lengths", {**DSA, **PIECEWISE}),
    ("negative-padded-lengths", {**DSA, "num_speculative_tokens": 0}),
    ("negative-padded-lengths", {**DSA, "sparse_topk": 0}),
    ("persistent-topk-on-hopper", {**HOPPER, "vllm_version": "0.33.0"}),
    ("persistent-topk-on-hopper", {**HOPPER, "vllm_version": "0.20.1", "sparse_topk": 1024}),
    ("persistent-topk-on-hopper", {**HOPPER, "vllm_version": "0.20.1", "capability": (10, 0)}),
    ("persistent-topk-on-hopper", {**HOPPER, "vllm_version": "0.20.1", "capability": None}),
]


def rules(facts: dict[str, Any]) -> list[str]:
    return [finding.rule for finding in audit_engine(EngineFacts(**facts))]


@pytest.mark.parametrize(("rule", "facts"), BREAKS)
def test_an_engine_that_breaks_the_rule_is_told(rule: str, facts: dict[str, Any]) -> None:
    assert rules(facts).count(rule) == 1


@pytest.mark.parametrize(("rule", "facts"), KEEPS)
def test_an_engine_that_keeps_the_rule_is_left_alone(rule: str, facts: dict[str, Any]) -> None:
    assert rule not in rules(facts)


def test_every_rule_is_seen_to_break_and_to_hold() -> None:
    assert {rule for rule, _ in BREAKS} == set(RULES) == {rule for rule, _ in KEEPS}


def test_an_engine_of_which_nothing_is_known_is_left_alone() -> None:
    assert audit_engine(EngineFacts()) == []


def test_errors_come_before_warnings_and_notes() -> None:
    facts = EngineFacts(
        **DSA,
        all_reduces=(AllReduceFact("tp:0", False, 3),),
        runner="v1",
        drafter=DrafterFact("mtp", enforce_eager=True),
    )
    severities = [finding.severity for finding in audit_engine(facts)]
    assert severities == [Severity.ERROR, Severity.WARNING, Severity.NOTE]


def test_a_finding_says_what_why_and_what_to_do_with_its_evidence() -> None:
    (finding,) = audit_engine(EngineFacts(**DSA))
    assert str(finding) == (
        "warning: negative-padded-lengths: the sparse indexer gives padded requests lengths down "
        f"to -2; {finding.why} (vllm#51593, vllm#51538, flashinfer#5015); {finding.advice}"
    )
    assert finding.evidence == (
        "vLLM 0.20.1: judged by the version",
        "index_topk=2048, 3 tokens a request, FULL decodes",
    )


def test_many_odd_sizes_are_not_all_listed() -> None:
    facts = EngineFacts(**PIECEWISE, num_speculative_tokens=1, capture_sizes=tuple(range(1, 40, 2)))
    (finding,) = audit_engine(facts)
    assert "1, 3, 5, 7, 9, 11, 13, 15 and 12 more tokens" in finding.what


@pytest.mark.parametrize(
    ("text", "release"),
    [("0.20.1", (0, 20)), ("0.33.0+cu130", (0, 33)), ("dev", (0, 0)), (None, (0, 0))],
)
def test_versions_are_read(text: str | None, release: tuple[int, int]) -> None:
    assert EngineFacts(vllm_version=text).release == release
    assert version_text(22809) == "2.28.9"
