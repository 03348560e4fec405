"""What a graph of vLLM's V2 runner stands for: its batch, and the family that it belongs to."""

from __future__ import annotations

from graphguard.batch import BatchDescriptor
from graphguard.signature import GraphKey, GraphMode
from graphguard.vllm.captures import Choice
from graphguard.vllm.dispatching_v2 import Descriptor

_FULL = "FULL"

_VARIANTS = (
    ("num_active_loras", 0, "LoRA"),
    ("num_ubatches", 1, "micro-batches"),
    ("num_speculative_tokens", 0, "drafts"),
)
"""Fields of a descriptor that tell graphs of one size apart, and their values where they do not."""


def batch_captured_for(choice: Choice) -> BatchDescriptor:
    """Return the descriptor that a graph of vLLM stands for.

    A uniform full graph is for decodes of the same number of query tokens each. Every other one
    takes any requests of that many tokens.
    """
    descriptor: Descriptor = choice.descriptor
    num_reqs, query_len = descriptor.num_reqs, descriptor.uniform_token_count
    if choice.mode == _FULL and num_reqs and num_reqs * (query_len or 0) == descriptor.num_tokens:
        return BatchDescriptor.of(num_reqs, query_len)
    return BatchDescriptor.tokens(descriptor.num_tokens)


def key_of(role: str, choice: Choice, batch: BatchDescriptor, name: str) -> GraphKey:
    """Return the family of a graph of vLLM."""
    descriptor: Descriptor = choice.descriptor
    mode = GraphMode.FULL if choice.mode == _FULL else GraphMode.PIECEWISE
    words = [name] if name else []
    if mode is GraphMode.FULL and batch.num_reqs == 0:
        bound = getattr(descriptor, "max_query_len", None)
        words.append("mixed" if bound is None else f"up to {bound} tokens a request")
    for attribute, least, unit in _VARIANTS:
        if (count := getattr(descriptor, attribute, least)) > least:
            words.append(f"{count} {unit}")
    return GraphKey(role, mode, ", ".join(words))
