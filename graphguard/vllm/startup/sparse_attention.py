"""Models with a sparse indexer (DSA): what padded slots and Hopper did to their top-k kernels."""

from __future__ import annotations

from graphguard.vllm.startup.catalogue import finding
from graphguard.vllm.startup.facts import EngineFacts
from graphguard.vllm.startup.findings import StartupFinding

# Read in the sources: 0.20.1, 0.26.0 and 0.27.1 do not clamp; 0.28.0, 0.32.0 and 0.33.0 do.
_FIRST_CLAMPED = (0, 28)
_HOPPER = 9
# The newest version in whose source this kernel was seen to be called on Hopper.
_LAST_PERSISTENT = (0, 26)
# The sizes for which 0.20.1 calls the kernel below compute capability 10, and 0.26.0 anywhere.
_SIZES_0_20 = (512, 2048)
_SIZES = (512, 1024, 2048)


def negative_lengths(facts: EngineFacts) -> list[StartupFinding]:
    """Find an indexer that computes negative lengths for the padded requests of FULL graphs."""
    if not facts.sparse_topk or not facts.num_speculative_tokens or facts.decode_mode != "FULL":
        return []
    clamps, source = facts.indexer_clamps, "its source was read"
    if clamps is None:
        if facts.release == (0, 0):
            return []
        clamps, source = facts.release >= _FIRST_CLAMPED, "judged by the version"
    if clamps:
        return []
    lowest = 1 - facts.query_len
    return [
        finding(
            "negative-padded-lengths",
            f"the sparse indexer gives padded requests lengths down to {lowest}",
            f"vLLM {facts.vllm_version}: {source}",
            f"index_topk={facts.sparse_topk}, {facts.query_len} tokens a request, FULL decodes",
        )
    ]


def persistent_topk(facts: EngineFacts) -> list[StartupFinding]:
    """Find the persistent top-k kernel in graphs on Hopper, in versions with such reports."""
    if facts.capability is None or facts.capability[0] != _HOPPER or facts.decode_mode != "FULL":
        return []
    if not (0, 20) <= facts.release <= _LAST_PERSISTENT:
        return []
    sizes = _SIZES_0_20 if facts.release == (0, 20) else _SIZES
    if facts.sparse_topk not in sizes:
        return []
    return [
        finding(
            "persistent-topk-on-hopper",
            f"FULL graphs hold the persistent top-k kernel ({facts.sparse_topk} of each row)",
            f"vLLM {facts.vllm_version}",
            f"compute capability {facts.capability[0]}.{facts.capability[1]}",
        )
    ]
