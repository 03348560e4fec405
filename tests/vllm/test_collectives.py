"""What the recorder of collective calls sees of vLLM's communicators."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import msgspec
import pytest

from graphguard.signature import CollectiveCall
from tests.vllm import coordinators, wheels


def lines(calls: list[dict[str, Any]]) -> list[str]:
    """Each call with the transport it went through."""
    read = (msgspec.convert(call, CollectiveCall) for call in calls)
    return [f"{call} by {call.seen_by.removeprefix('vllm:')}" for call in read]


@pytest.fixture(scope="module")
def ranks(tmp_path_factory: pytest.TempPathFactory) -> list[dict[str, Any]]:
    """What two real ranks of the CPU build recorded."""
    return coordinators.run("everything", tmp_path_factory.mktemp("vllm-ranks"))


@pytest.mark.parametrize("rank", [0, 1])
def test_calls_of_real_coordinators_are_recorded_as_they_were_made(
    ranks: list[dict[str, Any]], rank: int
) -> None:
    seen = ranks[rank]["operations"]

    def collectives(group: str, transport: str) -> list[str]:
        return [
            f"all_reduce(24 float32, sum) on {group} by {transport}",
            f"all_gather(24 bfloat16) on {group} by {transport}",
            f"gather(12 float32, root 1) on {group} by {transport}",
            f"broadcast(24 float32, root 1) on {group} by torch",
        ]

    def passing_on(group: str, transport: str) -> list[str]:
        verb = ("send", "recv")[rank]
        return [
            f"{verb}(24 float32, peer {1 - rank}) on {group} by {transport}",
            f"{verb}(3 float32, peer {1 - rank}) on {group} by {transport}",
            f"{verb}(24 int64, peer {1 - rank}) on {group} by torch",
        ]

    assert lines(seen["tensor parallel"]) == collectives("tp:0[0-1]", "shm")
    assert lines(seen["pipeline"]) == passing_on("pp:1[0-1]", "shm")
    plain = "dp:1[0-1]"
    assert lines(seen["plain"]) == [*collectives(plain, "torch"), *passing_on(plain, "torch")]
    assert lines(seen["scatter"]) == [f"reduce_scatter(12 float32, sum) on {plain} by torch"]
    assert lines(seen["tensors"]) == [f"broadcast(5 float32, root 0) on {plain} by torch"]
    for call in seen["tensor parallel"]:
        assert (call["group_rank"], call["group_size"]) == (rank, 2)


def test_a_group_of_one_rank_makes_no_calls(ranks: list[dict[str, Any]]) -> None:
    assert [rank["operations"]["one rank"] for rank in ranks] == [[], []]


def test_a_call_on_another_group_inside_of_one_is_a_call_of_its_own(
    ranks: list[dict[str, Any]],
) -> None:
    stage, tensor = "stage:0[0-1]", "tp:0[0-1]"
    for rank, verb in enumerate(("send", "recv")):
        assert lines(ranks[rank]["pipeline"]) == [
            f"{verb}(12 float32, peer {1 - rank}) on {stage} by torch",
            f"all_gather(12 float32) on {tensor} by shm",
        ]


ALL_REDUCE = "all_reduce(3 float32, sum) on tp:0[0-1]"


@pytest.mark.parametrize("rank", [0, 1])
def test_compiled_code_is_seen_where_it_calls_the_operator_of_vllm(
    ranks: list[dict[str, Any]], rank: int
) -> None:
    seen = ranks[rank]["compiled"]
    for name in ("operator", "traced"):
        assert lines(seen[name]["calls"]) == [f"{ALL_REDUCE} by shm"]
        assert seen[name]["value"] == [5, 5, 5]
    # There the graph calls the kernel, with no Python of vLLM in between: nobody can see it.
    assert seen["traced on the CPU"]["calls"] == []


@pytest.mark.parametrize(
    ("name", "operator"),
    [("traced", "vllm.all_reduce"), ("traced on the CPU", "_C.shm_allreduce")],
)
def test_the_wrappers_leave_no_trace_in_what_is_compiled_and_compile_nothing_again(
    ranks: list[dict[str, Any]], name: str, operator: str
) -> None:
    (nodes,) = ranks[0]["compiled"][name]["graphs"]
    assert nodes[1:] == ["<built-in function mul>", operator, "<built-in function add>", "output"]


@pytest.mark.parametrize("rank", [0, 1])
def test_an_emulated_capture_shows_the_call_before_it_runs(
    ranks: list[dict[str, Any]], rank: int
) -> None:
    seen = ranks[rank]["captured"]
    assert lines(seen["operator"]["calls"]) == [f"{ALL_REDUCE} by unseen"]
    assert lines(seen["operator"]["replayed"]) == [f"{ALL_REDUCE} by shm"]
    assert lines(seen["shared memory"]["calls"]) == [f"{ALL_REDUCE} by shm"]
    assert [run["value"] for run in seen.values()] == [[3, 3, 3], [3, 3, 3]]


@pytest.fixture(scope="module", params=wheels.CUDA_VERSIONS)
def on_a_device(request: pytest.FixtureRequest) -> dict[str, Any]:
    """What one wheel's own CudaCommunicator did above stand-ins for the devices."""
    repository = Path(__file__).parents[2]
    environment = {
        **os.environ,
        "PYTHONPATH": os.pathsep.join(map(str, (wheels.python_files(request.param), repository))),
        "VLLM_LOGGING_LEVEL": "ERROR",
    }
    run = subprocess.run(
        [sys.executable, "-m", "tests.vllm.device_communicators"],
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        cwd=repository,
        env=environment,
        timeout=200,
        check=False,
    )
    assert run.returncode == 0, run.stderr[-4000:]
    seen: dict[str, Any] = json.loads(run.stdout.splitlines()[-1])
    assert seen["version"] == request.param
    return seen


TRANSPORTS = {
    "nccl": "nccl",
    "nccl switched off": "torch",
    "custom": "custom_all_reduce",
    "custom, too large": "nccl",
    "quick": "quick_reduce",
    "flashinfer": "flashinfer",
    "flashinfer over PCIe": "flashinfer_pcie_ipc",
    "aiter": "aiter",
    "symmetric memory": "symm_mem",
}
ADDED = {"aiter": ("0.26.0", "0.33.0"), "flashinfer over PCIe": ("0.33.0",)}
"""What came after the oldest of the versions, and those that have it."""


def test_each_transport_of_an_all_reduce_is_recognised(on_a_device: dict[str, Any]) -> None:
    version, seen = on_a_device["version"], on_a_device["all_reduces"]
    assert {name: lines(calls) for name, calls in seen.items()} == {
        name: [
            f"all_reduce({64 if 'large' in name else 32} bfloat16, sum) on tp:0[0-1] by {transport}"
        ]
        for name, transport in TRANSPORTS.items()
        if version in ADDED.get(name, (version,))
    }


def test_operations_that_nccl_carries_are_counted_as_nccl_counts(
    on_a_device: dict[str, Any],
) -> None:
    # The oldest has no all-gather of its own and leaves it to torch.
    gathers = "torch" if on_a_device["version"] == "0.20.1" else "nccl"
    group = "tp:0[0-1]"
    expected = {
        "all_gather": [f"all_gather(32 bfloat16) on {group} by {gathers}"],
        "all_gather in the last dimension": [f"all_gather(32 bfloat16) on {group} by {gathers}"],
        "reduce_scatter": [f"reduce_scatter(16 bfloat16, sum) on {group} by nccl"],
        "send": [f"send(32 bfloat16, peer 1) on {group} by nccl"],
        "recv": [f"recv(32 bfloat16, peer 1) on {group} by nccl"],
        "even": [f"all_gather(32 bfloat16) on {group} by nccl"],
        "uneven": [
            f"all_gather_v(64 bfloat16, coalesced) on {group} by nccl",
            f"all_gather_v(64 float32, coalesced) on {group} by nccl",
        ],
        "uneven back": [f"reduce_scatter_v(48 bfloat16, sum) on {group} by nccl"],
        "even back": [f"reduce_scatter(24 bfloat16, sum) on {group} by nccl"],
        "by the communicator": [f"all_reduce(32 bfloat16, sum) on {group} by nccl"],
        "broadcast": [f"broadcast(32 bfloat16, root 1) on {group} by nccl"],
    }
    assert {name: lines(calls) for name, calls in on_a_device["nccl"].items()} == expected


def test_nccl_in_symmetric_memory_is_told_from_plain_nccl(on_a_device: dict[str, Any]) -> None:
    seen = {name: lines(calls) for name, calls in on_a_device["symmetric"].items()}
    expected = {"all_reduce": ["all_reduce(32 bfloat16, sum) on tp:0[0-1] by nccl_symm_mem"]}
    if on_a_device["version"] != "0.20.1":
        gathered = "all_gather(32 bfloat16, coalesced) on tp:0[0-1] by nccl_symm_mem"
        expected |= {
            "all_gather": ["all_gather(32 bfloat16) on tp:0[0-1] by nccl_symm_mem"],
            "reduce_scatter": ["reduce_scatter(16 bfloat16, sum) on tp:0[0-1] by nccl_symm_mem"],
            "list": [gathered, gathered],
        }
    assert seen == expected


def test_experts_that_gather_are_recorded_on_the_group_that_gathers(
    on_a_device: dict[str, Any],
) -> None:
    seen = {name: lines(calls) for name, calls in on_a_device["experts"].items()}
    assert seen == {
        "dispatch": [
            f"all_gather({elements}, coalesced) on dp:0[0-1] by all2all:AgRs/nccl"
            for elements in ("32 bfloat16", "8 float32", "8 int32")
        ],
        "combine": ["reduce_scatter(32 bfloat16, sum) on dp:0[0-1] by all2all:AgRs/nccl"],
    }
