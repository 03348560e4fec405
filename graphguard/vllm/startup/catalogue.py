"""Every rule of the audit at start-up: how bad it is to break it, why, and what to do then."""

from __future__ import annotations

from typing import NamedTuple

from graphguard.vllm.startup.findings import Severity, StartupFinding


class Rule(NamedTuple):
    """What is the same for all findings of a rule."""

    severity: Severity
    why: str
    advice: str
    issues: tuple[str, ...] = ()


_ERROR, _WARNING, _NOTE = Severity.ERROR, Severity.WARNING, Severity.NOTE

RULES: dict[str, Rule] = {
    "piecewise-size-not-aligned": Rule(
        _WARNING,
        "a decode step is padded to a size that ends within a request, and kernels that take the "
        "tokens by requests go past their buffers: illegal addresses at the first request were "
        "reported with hybrid models",
        "set cudagraph_capture_sizes to multiples of 1 + num_speculative_tokens",
        ("vllm#46324",),
    ),
    "uniform-size-not-aligned": Rule(
        _ERROR,
        "the graph has tokens that belong to no request, or was captured through the branch for "
        "prefills; it read illegal addresses where that was seen",
        "set cudagraph_capture_sizes to multiples of 1 + num_speculative_tokens",
        ("vllm#28015", "vllm#28207"),
    ),
    "unregistered-all-reduce-buffers": Rule(
        _ERROR,
        "a graph that is replayed before its buffers are exchanged reads another rank's memory at "
        "addresses that are not mapped",
        "start with --disable-custom-all-reduce, or with the drafter eager: "
        "--speculative-config '{\"enforce_eager\": true, ...}'",
        ("vllm#28334",),
    ),
    "breakable-graphs-with-custom-all-reduce": Rule(
        _NOTE,
        "illegal addresses during the capture were reported for the two together; if capturing "
        "ended, this was not it",
        "if start-up fails in custom_all_reduce, use --disable-custom-all-reduce",
        ("vllm#52457",),
    ),
    "fused-all-reduce-in-piecewise-graphs": Rule(
        _NOTE,
        "FlashInfer's one-shot all-reduce was seen to spin for ever in replayed piecewise graphs, "
        "until a fix in FlashInfer; which release has it is not known here",
        "if ranks hang in it, set fuse_allreduce_rms to false in pass_config",
        ("flashinfer#3053", "flashinfer#3304", "vllm#35772", "vllm#47219"),
    ),
    "prompt-logprobs-from-shared-pool": Rule(
        _NOTE,
        "the drafter's graphs may overwrite what the target's returned. vLLM samples before it "
        "drafts, so generated tokens are right; prompt log probabilities are computed afterwards, "
        "and were reported wrong for prompts that run in piecewise graphs",
        "do not trust prompt_logprobs of this engine; other requests need nothing",
        ("vllm#53488", "vllm#53520"),
    ),
    "pool-shared-by-target-and-drafter": Rule(
        _WARNING,
        "graphs of one pool reuse each other's memory: what one returns must be read before "
        "another is replayed. vLLM shares its own global pool with that in mind; this is "
        "another one",
        "give the drafter's graphs a pool of their own",
        ("sglang#22930",),
    ),
    "shared-graph-pool": Rule(
        _NOTE,
        "this is how vLLM is built: what passes from graph to graph goes through static buffers. "
        "Code that keeps a graph's output and reads it after another replay reads garbage",
        "nothing; remember it where custom code keeps outputs of the target across a draft",
        ("sglang#22930",),
    ),
    "nccl-replay-hangs": Rule(
        _WARNING,
        "collectives in replayed graphs were reported to deadlock between nodes with this version; "
        "several reporters say that 2.30.4 ended it",
        "use NCCL 2.30.4 or newer (VLLM_NCCL_SO_PATH), or piecewise graphs that break at "
        "collectives",
        ("vllm#46253", "vllm#46372", "vllm#48877", "vllm#52504", "vllm#40969"),
    ),
    "nccl-not-known-good": Rule(
        _NOTE,
        "hangs of replayed collectives between nodes were reported for 2.28.9, and said to be over "
        "with 2.30.4; of versions between the two nothing is known here",
        "if replays hang between nodes, try NCCL 2.30.4 or newer first",
        ("vllm#46253", "vllm#40969"),
    ),
    "eager-drafter": Rule(
        _NOTE,
        "the drafter has no graphs, so there is nothing of it to check but the order of its steps; "
        "its kernels are launched one by one",
        "nothing, if that is what you want",
    ),
    "negative-padded-lengths": Rule(
        _WARNING,
        "for a padded request the sparse indexer computes 0 - query length + 1, which is "
        "negative; read as an unsigned number it made thread blocks of the top-k kernel wait for "
        "each other for ever",
        "use a vLLM whose indexer clamps these lengths (0.28 and newer do), or set "
        "GRAPHGUARD_PADDED=avoid, or use cudagraph_mode=PIECEWISE",
        ("vllm#51593", "vllm#51538", "flashinfer#5015"),
    ),
    "persistent-topk-on-hopper": Rule(
        _WARNING,
        "the persistent top-k kernel needs all its thread blocks on the GPU at once; in a replayed "
        "graph on Hopper they were reported to wait for some that never got a place",
        "use a newer vLLM; if a replay hangs, look for persistent_topk on the stuck stream",
        ("vllm#41189", "vllm#41442", "vllm#41605", "vllm#41483"),
    ),
}


def finding(rule: str, what: str, *evidence: str) -> StartupFinding:
    """Return a finding of a rule, with the reason, the advice and the threads of that rule."""
    entry = RULES[rule]
    return StartupFinding(
        rule=rule,
        severity=entry.severity,
        what=what,
        why=entry.why,
        advice=entry.advice,
        evidence=evidence,
        issues=entry.issues,
    )
