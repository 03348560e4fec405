"""``graphguard run`` on a program with CUDA graphs that knows nothing of graphguard."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

from msgspec.json import decode

from graphguard import manifest

PROGRAM = """
import torch
x = torch.ones(1024, device="cuda")
graphs = []
for _ in range(2):
    graph = torch.cuda.CUDAGraph()
    with torch.cuda.graph(graph):
        y = x * 2
    graphs.append(graph)
for graph in graphs:
    graph.replay()
torch.cuda.synchronize()
print(int(y.sum()))
"""


def test_the_graphs_of_an_unchanged_program_are_recorded_and_its_results_stay(
    tmp_path: Path,
) -> None:
    directory = tmp_path / "run"
    command = [sys.executable, "-m", "graphguard", "run", "--output", str(directory), "--"]
    ended = subprocess.run(
        [*command, sys.executable, "-c", PROGRAM],
        capture_output=True,
        text=True,
        check=False,
        timeout=240,
    )

    assert (ended.returncode, ended.stdout) == (0, "2048\n"), ended.stderr
    recorded = manifest.read(directory / "manifest.rank0.json")
    assert [signature.graph_kind for signature in recorded.signatures] == ["torch.cuda"] * 2
    report = decode((directory / "report.json").read_bytes())
    assert report["processes"] == {"loaded": 1, "refused": []}
    assert report["audit"]["ranks"] == [0]
    assert report["blackbox"] is not None
