"""What a graph of vLLM's V1 runner stands for: its batch, and the family that it belongs to."""

from __future__ import annotations

from typing import Any

from graphguard.batch import BatchDescriptor
from graphguard.signature import GraphKey, GraphMode
from graphguard.vllm.captures import Choice

Sizes = tuple[int, int | None, int]
"""Tokens, requests and LoRAs of a graph."""

_FULL = "FULL"


def sizes_of(descriptor: Any) -> Sizes:  # noqa: ANN401 - vLLM's own
    """Return what tells the graphs of a mode apart: hashing the descriptor takes twice as long."""
    return descriptor.num_tokens, descriptor.num_reqs, descriptor.num_active_loras


def batch_captured_for(choice: Choice) -> BatchDescriptor:
    """Return the descriptor that a graph of vLLM stands for.

    A uniform full graph is for decodes of ``num_tokens / num_reqs`` query tokens each. Every other
    one takes any requests of that many tokens.
    """
    descriptor: Any = choice.descriptor
    if choice.mode == _FULL and descriptor.uniform and descriptor.num_reqs:
        query_len, rest = divmod(descriptor.num_tokens, descriptor.num_reqs)
        if rest == 0:
            return BatchDescriptor.of(descriptor.num_reqs, query_len)
    return BatchDescriptor.tokens(descriptor.num_tokens)


def key_of(role: str, choice: Choice, batch: BatchDescriptor) -> GraphKey:
    """Return the family of a graph of vLLM."""
    mode = GraphMode.FULL if choice.mode == _FULL else GraphMode.PIECEWISE
    words = []
    if mode is GraphMode.FULL and batch.num_reqs == 0:
        words.append("mixed")
    if loras := getattr(choice.descriptor, "num_active_loras", 0):
        words.append(f"{loras} LoRA")
    return GraphKey(role, mode, ", ".join(words))
