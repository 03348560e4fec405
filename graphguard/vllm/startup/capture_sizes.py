"""Sizes that do not hold whole requests."""

from __future__ import annotations

from collections.abc import Iterable

from graphguard.vllm.startup.catalogue import finding
from graphguard.vllm.startup.facts import EngineFacts, GraphFact
from graphguard.vllm.startup.findings import StartupFinding

_LISTED = 8


def piecewise_sizes(facts: EngineFacts) -> list[StartupFinding]:
    """Find piecewise sizes that decode steps of 1 + k tokens a request cannot fill.

    vLLM rounds the sizes itself where decodes run in FULL graphs, so this is about PIECEWISE alone.
    """
    if not facts.num_speculative_tokens or facts.decode_mode != "PIECEWISE":
        return []
    captured = {g.num_tokens for g in facts.graphs if g.mode == "PIECEWISE" and g.role == "target"}
    sizes = captured or set(facts.capture_sizes)
    odd = sorted(size for size in sizes if size % facts.query_len)
    if not odd:
        return []
    return [
        finding(
            "piecewise-size-not-aligned",
            f"piecewise graphs of {_listed(odd)} tokens, where a decode step has "
            f"{facts.query_len} tokens a request",
            f"cudagraph_capture_sizes={list(facts.capture_sizes)}",
            f"num_speculative_tokens={facts.num_speculative_tokens}",
        )
    ]


def uniform_sizes(facts: EngineFacts) -> list[StartupFinding]:
    """Find FULL graphs for uniform batches whose tokens are not requests times query length.

    V1's dispatcher refuses such a size itself; V2's manager of 0.20.1 does not.
    """
    odd = [
        graph
        for graph in facts.graphs
        if graph.mode == "FULL"
        and graph.query_len
        and (
            graph.num_tokens % graph.query_len
            or graph.num_reqs not in (None, graph.num_tokens // graph.query_len)
        )
    ]
    return [
        finding(
            "uniform-size-not-aligned",
            f"FULL graphs of the {role} for {_listed(sorted({g.num_tokens for g in graphs}))} "
            f"tokens in requests of {query_len}",
            *(f"{g.num_tokens} tokens, {g.num_reqs} requests" for g in graphs[:_LISTED]),
        )
        for (role, query_len), graphs in _by_role(odd).items()
    ]


def _by_role(graphs: Iterable[GraphFact]) -> dict[tuple[str, int], list[GraphFact]]:
    by_role: dict[tuple[str, int], list[GraphFact]] = {}
    for graph in graphs:
        by_role.setdefault((graph.role, graph.query_len), []).append(graph)
    return by_role


def _listed(sizes: list[int]) -> str:
    more = f" and {len(sizes) - _LISTED} more" if len(sizes) > _LISTED else ""
    return ", ".join(str(size) for size in sizes[:_LISTED]) + more
