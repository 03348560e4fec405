"""Replays of persistent_topk that may hang: ``… CASES ANSWERS VLLM-FOLDER``.

Only the library of vLLM's operators is loaded, not vLLM.
"""

from __future__ import annotations

import json
import os
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch

WORKSPACE_BYTES = 1024 * 1024
"""RADIX_TOPK_WORKSPACE_SIZE of vLLM's sparse_attn_indexer.py."""

LIBRARIES = ("_C.abi3.so", "_C_stable_libtorch.abi3.so")
"""0.20.1 registers the operator in the first one, 0.26.0 in the second."""

SHORTEST_SEQUENCE = 3_000


def load(folder: Path) -> None:
    """Load the libraries that register the operator.

    Raises:
        OSError: If there is none, or it cannot be loaded.
    """
    found = [path for name in LIBRARIES if (path := folder / "vllm" / name).is_file()]
    if not found:
        raise OSError(f"{folder / 'vllm'} has none of {', '.join(LIBRARIES)}")
    for path in found:
        torch.ops.load_library(str(path))


def lengths_of(case: dict[str, Any]) -> list[int]:
    """Return the length of each row, as vLLM derives them for a decode with drafts."""
    each, longest = case["rows_each"], case["max_seq_len"]
    shortest = min(SHORTEST_SEQUENCE, longest)
    lengths = []
    for request in range(case["padded"]):
        live = request < case["reqs"]
        spread = (longest - shortest) * request // max(1, case["reqs"] - 1)
        seq_len = min(longest, shortest + spread) if live else 0
        rows = [seq_len - each + 1 + place for place in range(each)]
        lengths += [max(0, row) for row in rows] if case["clamped"] else rows
    return lengths


def run(case: dict[str, Any]) -> dict[str, Any]:
    """Capture the operator, replay it once with padding that is clamped, and once as asked."""
    lengths = lengths_of(case)
    rows, k = len(lengths), case["top_k"]
    logits = torch.randn(rows, case["columns"], device="cuda")
    harmless = torch.tensor([max(0, n) for n in lengths], dtype=torch.int32, device="cuda")
    held = harmless.reshape(case["padded"], case["rows_each"]).clone()
    output = torch.full((rows, k), -7, dtype=torch.int32, device="cuda")
    workspace = torch.zeros(WORKSPACE_BYTES, dtype=torch.uint8, device="cuda")

    def call() -> None:
        torch.ops._C.persistent_topk(logits, held, output, workspace, k, case["max_seq_len"])

    call()
    torch.cuda.synchronize()
    replay = captured(call, case)
    replay()
    torch.cuda.synchronize()
    output.fill_(-7)
    asked = torch.tensor(lengths, dtype=torch.int32, device="cuda")
    held.copy_(asked.reshape(held.shape))
    for _ in range(3):
        replay()
    torch.cuda.synchronize()
    return {"right": _right(logits, lengths, output, k), "lengths": lengths[-4:]}


def captured(call: Callable[[], None], case: dict[str, Any]) -> Callable[[], object]:
    """Return what replays a graph of the call: the graph alone, or a guard that observes it."""
    graph = torch.cuda.CUDAGraph()
    if not case.get("guarded"):
        with torch.cuda.graph(graph):
            call()
        return graph.replay
    from graphguard import BatchDescriptor, Captured, Session, guard

    def capture(_batch: BatchDescriptor) -> Captured:
        with torch.cuda.graph(graph):
            call()
        return Captured(graph)

    batch = BatchDescriptor.of(case["padded"], case["rows_each"])
    step = guard("target", session=Session(), mode="observe", on_divergence="raise")(capture)
    step.warm_up([batch])
    return lambda: step(batch)


def _right(logits: torch.Tensor, lengths: list[int], output: torch.Tensor, k: int) -> bool:
    """Say whether the rows with a length hold the indices of their largest values."""
    for row, length in enumerate(lengths):
        if length <= 0:
            continue
        expected = min(k, length)
        chosen = output[row][output[row] >= 0].long()
        if len(chosen) != expected or len(chosen.unique()) != expected:
            return False
        if int(chosen.max()) >= length:
            return False
        # By value, for equal values may be chosen either way.
        best = logits[row, :length].topk(expected).values.sort().values
        if not torch.equal(logits[row][chosen].sort().values, best):
            return False
    return True


def attempted(case: dict[str, Any]) -> dict[str, Any]:
    """Run a case, and return what is answered."""
    try:
        return {"value": run(case)}
    except RuntimeError as error:
        return {"error": str(error).strip().splitlines()[0][:500]}


def main() -> None:
    """Run the cases, and answer each."""
    cases = json.loads(Path(sys.argv[1]).read_bytes())
    answers = os.open(sys.argv[2], os.O_WRONLY | os.O_APPEND)

    def answer(content: dict[str, Any]) -> None:
        os.write(answers, json.dumps(content).encode() + b"\n")

    load(Path(sys.argv[3]))
    torch.cuda.synchronize()
    answer({"ready": True})
    for case in cases:
        answer(attempted(case))


if __name__ == "__main__":
    main()
