"""The interposer in front of real NCCL: what is recorded of a graph is what was called.

Two ranks share one GPU where NCCL lets them: 2.30 and newer, with NCCL_MULTI_RANK_GPU_ENABLE=1.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import torch

from graphguard.errors import ConfigurationError
from graphguard.recorders import nccl_interposer
from tests.native.cmake_target import REPOSITORY

RUN_TIMEOUT = 240
ELEMENTS = 256


def run_ranks(size: int, folder: Path) -> list[dict[str, Any]]:
    """Run the program on each rank; on a failure, end what is left of them."""
    try:
        environment = nccl_interposer.preloading(os.environ)
    except ConfigurationError as error:
        pytest.skip(error.message)
    environment |= {"NCCL_MULTI_RANK_GPU_ENABLE": "1", "NCCL_NVLS_ENABLE": "0"}
    environment |= {"NCCL_MAX_CTAS": "2", "PYTHONPATH": str(REPOSITORY)}
    command = [sys.executable, "-m", "tests.gpu.nccl_calls_program", str(folder / "group")]
    ranks = [
        subprocess.Popen(
            [*command, str(rank), str(size)],
            env=environment,
            cwd=REPOSITORY,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
        )
        for rank in range(size)
    ]
    try:
        outputs = [rank.communicate(timeout=RUN_TIMEOUT)[0] for rank in ranks]
    finally:
        for rank in ranks:
            rank.kill()
            rank.wait()
    for rank, output in zip(ranks, outputs, strict=True):
        assert rank.returncode == 0, output
    return [json.loads(output.splitlines()[-1]) for output in outputs]


def expected_calls(rank: int, size: int) -> list[list[object]]:
    both = "c10d+interposer"
    calls: list[list[object]] = [
        ["all_reduce", ELEMENTS, "max", None, None, both],
        ["all_gather", ELEMENTS, None, None, None, both],
        ["reduce_scatter", ELEMENTS, "sum", None, None, both],
        ["broadcast", ELEMENTS, None, size - 1, None, both],
    ]
    if size > 1:
        calls += [
            ["send", ELEMENTS, None, None, (rank + 1) % size, both],
            ["recv", ELEMENTS, None, None, (rank - 1) % size, both],
        ]
    return calls


@pytest.mark.parametrize("size", [1, 2])
def test_what_is_recorded_of_a_graph_is_what_was_called(size: int, tmp_path: Path) -> None:
    if size > 1 and torch.cuda.device_count() < size and torch.cuda.nccl.version() < (2, 30):
        pytest.skip("two ranks on one GPU need NCCL 2.30 or newer")
    for rank, seen in enumerate(run_ranks(size, tmp_path)):
        assert seen["interposed"]
        assert seen["calls"] == expected_calls(rank, size)
        assert seen["disagreements"] == []
        # And the graph does what it would have done.
        assert seen["reduced"] == [size - 1]
        assert seen["broadcast"] == [size - 1]
        assert seen["scattered"] == [size * (rank + 1)]
        if size > 1:
            assert seen["received"] == [(rank - 1) % size + 1]
