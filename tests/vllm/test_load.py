"""The seeds' check, scaled to this machine: every request of a burst is answered, ranks agree."""

from __future__ import annotations

import importlib.util
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.vllm.boxes import black_boxes
from tests.vllm.engine import ServerRun, server
from tests.vllm.load import bench

pytestmark = [
    pytest.mark.skipif(
        importlib.util.find_spec("vllm") is None,
        reason="vLLM is not installed here: see tests/vllm/engine/README.md",
    ),
    pytest.mark.timeout(1200),
]

RANKS = (0, 1)


@pytest.fixture(scope="module")
def served() -> Iterator[ServerRun]:
    """A server whose black boxes keep every step of all bursts."""
    with server(
        graphguard="enforce", extra_environment={"GRAPHGUARD_RING_ENTRIES": str(2**18)}
    ) as run:
        yield run


@pytest.mark.parametrize("range_ratio", [0.0, 1.0])
@pytest.mark.parametrize("num_prompts", [512, 2048])
def test_every_request_of_a_burst_is_answered(
    num_prompts: int, range_ratio: float, served: ServerRun, tmp_path: Path
) -> None:
    told = bench(
        served.address,
        "tiny",
        served.directory / "model",
        num_prompts=num_prompts,
        range_ratio=range_ratio,
        results=tmp_path / "results.jsonl",
        seconds=500,
    )

    assert told["completed"] == num_prompts


def test_the_black_boxes_of_both_ranks_agree_on_every_step_of_all_bursts(
    served: ServerRun,
) -> None:
    records, summary = black_boxes(served)

    checks = [record for record in records if record["event"] == "check"]
    steps = [
        {(r["step"], r["role"], r["verdict"], r["reason"]) for r in checks if r["rank"] == rank}
        for rank in RANKS
    ]
    assert steps[0] == steps[1]
    assert len(steps[0]) > 1000
    assert {role for _, role, _, _ in steps[0]} == {"target", "drafter"}
    assert summary["first_difference"] is None
    assert summary["damaged"] == 0
    assert summary["divergences"] == 0


def test_what_the_workers_have_checked_is_at_vllms_metrics(served: ServerRun) -> None:
    lines = served.get("/metrics").splitlines()

    for role in ("target", "drafter"):
        for rank in RANKS:
            checks = [
                line
                for line in lines
                if line.startswith("graphguard_checks_total{")
                and f'role="{role}"' in line
                and f'rank="{rank}"' in line
            ]
            assert sum(float(line.rpartition(" ")[2]) for line in checks) > 0
    assert any(line.startswith("vllm:") for line in lines)
