"""The profiler plugin in real NCCL: what is recorded of a graph is what was called, and no more.

Two ranks share one GPU where NCCL lets them: 2.30 and newer, with NCCL_MULTI_RANK_GPU_ENABLE=1.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch

from tests.gpu.nccl_plugin_program import ELEMENTS
from tests.native.cmake_target import REPOSITORY

RUN_TIMEOUT = 240


def run_ranks(size: int, folder: Path, plugin: str) -> list[dict[str, Any]]:
    """Run the program on each rank; on a failure, end what is left of them."""
    environment = {
        **os.environ,
        "GRAPHGUARD_NCCL_PLUGIN": plugin,
        "NCCL_MULTI_RANK_GPU_ENABLE": "1",
        "NCCL_NVLS_ENABLE": "0",
        "NCCL_MAX_CTAS": "2",
        "PYTHONPATH": str(REPOSITORY),
    }
    file = folder / f"group-{plugin}"
    command = [sys.executable, "-m", "tests.gpu.nccl_plugin_program", str(file)]
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


@pytest.fixture
def _two_ranks_fit() -> None:
    nccl = torch.cuda.nccl.version()
    if nccl < (2, 28):
        pytest.skip(f"NCCL {nccl} has no events of API calls")
    if torch.cuda.device_count() < 2 and nccl < (2, 30):
        pytest.skip("two ranks on one GPU need NCCL 2.30 or newer")


@pytest.mark.usefixtures("_two_ranks_fit")
def test_what_is_recorded_of_a_graph_is_what_was_called(tmp_path: Path) -> None:
    expected = [
        ("all_reduce", ELEMENTS, "float32", None),
        ("all_gather", ELEMENTS, "float32", None),
        ("reduce_scatter", ELEMENTS, "float32", None),
        ("broadcast", ELEMENTS, "float32", 1),
        ("send", ELEMENTS, "float32", None),
        ("recv", ELEMENTS, "float32", None),
    ]
    hashes = set()
    for rank, seen in enumerate(run_ranks(2, tmp_path, "1")):
        calls = seen["captured"]
        assert [(c["operation"], c["count"], c["dtype"], c["root"]) for c in calls] == expected
        assert {(c["rank"], c["num_ranks"], c["captured"]) for c in calls} == {(rank, 2, 1)}
        assert len({c["capture_id"] for c in calls}) == 1
        assert calls[0]["capture_id"] != 0
        # The send and the receive are one group, and nothing else is in it.
        assert calls[4]["group"] == calls[5]["group"] != 0
        assert calls[3]["group"] != calls[4]["group"]
        assert seen["replayed"] == 0
        hashes |= {c["communicator_hash"] for c in calls[:4]}
    assert len(hashes) == 1


@pytest.mark.usefixtures("_two_ranks_fit")
def test_a_graph_has_the_same_nodes_with_and_without_the_plugin(
    tmp_path: Path, record_property: Callable[[str, object], None]
) -> None:
    with_plugin = run_ranks(2, tmp_path, "1")
    without = run_ranks(2, tmp_path, "0")
    assert [seen["captured"] for seen in without] == [None, None]
    assert [seen["nodes"] for seen in with_plugin] == [seen["nodes"] for seen in without]
    # Told and not asserted: a time is no property of the code.
    record_property("replay_seconds", [[s["replay"] for s in r] for r in (with_plugin, without)])


def test_nccl_tells_nothing_of_a_communicator_of_one_rank(tmp_path: Path) -> None:
    (seen,) = run_ranks(1, tmp_path, "1")
    assert seen["captured"] == []
    assert seen["status"][0] >= 4
