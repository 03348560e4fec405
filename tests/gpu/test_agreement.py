"""Ranks that agree beside a CUDA context. Two of them share the device."""

from pathlib import Path

import pytest
import torch

from graphguard import BatchDescriptor, Session
from tests.distributed.ranks import run
from tests.gpu.step import Step
from tests.gpu.test_cost import host_microseconds, keep

EXACT = BatchDescriptor.of(16, 2)


def test_two_ranks_on_one_device_agree_and_the_one_that_diverges_is_refused(
    tmp_path: Path,
) -> None:
    results = run("gpu_programs:agreed_on_one_gpu", 2, tmp_path)

    for result in results:
        assert result["verdicts"] == ["replay (exact)", "pad (padded)", "eager (query_length)"]
        assert result["equal"] == [True, True, True]
        assert "64x1" in result["message"]
        assert "3x1" in result["message"]


def test_cost_of_a_group_and_a_black_box(
    session: Session,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    one_rank: None,
) -> None:
    import torch.distributed as dist

    monkeypatch.setenv("GRAPHGUARD_DIR", str(tmp_path))
    monkeypatch.setenv("GRAPHGUARD_RING_ENTRIES", "16384")
    with torch.no_grad():
        step = Step(50)
        agreed = step.guarded(session, "16x2", group=dist.group.WORLD)
        bare = agreed._graphs.captured[0].graph
        figures = host_microseconds({"bare": bare.replay, "agreed": lambda: agreed(EXACT)})
    keep("agreed-replay-100-nodes", figures)
