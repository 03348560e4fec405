"""Graphs of one size that differ otherwise, and stages of a pipeline, in vLLM's own managers.

None of it was seen in a running engine: that needs Triton and GPUs.
"""

from __future__ import annotations

import inspect
from typing import Any
from unittest import mock

import pytest
import torch

from graphguard.batch import BatchDescriptor
from graphguard.vllm.captures import Choice
from graphguard.vllm.families_v2 import batch_captured_for, key_of
from tests.vllm.v2 import stand_ins
from tests.vllm.v2.check_ranks import Rank
from tests.vllm.v2.conftest import Arm


def manager_parameters() -> set[str]:
    from vllm.v1.worker.gpu.cudagraph_utils import ModelCudaGraphManager

    return set(inspect.signature(ModelCudaGraphManager.__init__).parameters)


def with_loras(runner: Any, cases: list[int]) -> Any:
    """Give a runner a manager that captures for these numbers of LoRAs."""
    from vllm.config import CUDAGraphMode
    from vllm.v1.worker.gpu.cudagraph_utils import ModelCudaGraphManager

    if "lora_capture_cases" not in manager_parameters():
        pytest.skip("this version captures no graphs for LoRAs in this runner")
    runner.cudagraph_manager = ModelCudaGraphManager(
        runner.vllm_config,
        runner.device,
        CUDAGraphMode.FULL_AND_PIECEWISE,
        decode_query_len=2,
        lora_capture_cases=cases,
    )
    return runner


def test_graphs_for_loras_are_families_of_their_own(arm: Arm) -> None:
    worker, runner = arm("enforce"), with_loras(stand_ins.runner(), [0, 1, 2])
    runner.capture_model()

    worker.seal(runner)

    names = list(map(str, worker.target.guard.signatures))
    assert len(names) == len(set(names)) == 30
    assert {n for n in names if n.endswith(" 16x2")} == {
        "target/full 16x2",
        "target/full/1 LoRA 16x2",
        "target/full/2 LoRA 16x2",
    }
    assert {n for n in names if n.endswith(" 32t")} == {
        "target/piecewise 32t",
        "target/piecewise/1 LoRA 32t",
        "target/piecewise/2 LoRA 32t",
    }
    assert all(len(s.collectives) == 2 for s in worker.target.guard.signatures)


@pytest.mark.parametrize("mode", ["observe", "enforce"])
def test_a_step_with_loras_is_checked_against_the_graph_for_as_many(
    monkeypatch: pytest.MonkeyPatch, mode: str
) -> None:
    from graphguard.vllm import captures_v2, patches

    make = stand_ins.runner
    monkeypatch.setattr(stand_ins, "runner", lambda *it: with_loras(make(*it), [0, 1, 4]))
    captures_v2.install()
    try:
        rank = Rank(mode)
        launched = [
            (loras, rank.run(4, num_active_loras=loras), str(rank.steps.guard.last_verdict))
            for loras in (0, 1, 3)
        ]
        graphs = [rank.graph(f"target/full{variant} 4x2") for variant in ("", "/1 LoRA", "/4 LoRA")]
    finally:
        patches.unwrap_all()

    assert launched == [(loras, ("FULL", 8), "replay (exact)") for loras in (0, 1, 3)]
    assert len(set(graphs)) == 3
    last = rank.steps.guard.last_verdict
    assert last is not None
    assert last.graph == graphs[-1]


def test_graphs_of_micro_batches_are_a_family_of_their_own() -> None:
    from vllm.config import CUDAGraphMode
    from vllm.v1.worker.gpu import cudagraph_utils

    if "ubatch_runner" not in manager_parameters():
        pytest.skip("this version captures no graphs of micro-batches in this runner")
    thresholds = mock.patch.object(cudagraph_utils, "check_ubatch_thresholds", return_value=True)
    split = mock.patch.object(cudagraph_utils, "get_num_ubatches", return_value=2)
    with thresholds, split:
        manager = cudagraph_utils.ModelCudaGraphManager(
            stand_ins.config("FULL_DECODE_ONLY", 2),
            torch.device("cpu"),
            CUDAGraphMode.FULL_DECODE_ONLY,
            decode_query_len=2,
            ubatch_runner=mock.MagicMock(),
        )

    of_16 = [d for d in manager._capture_descs[CUDAGraphMode.FULL] if d.num_tokens == 32]
    choices = [Choice("FULL", descriptor) for descriptor in of_16]
    batches = [batch_captured_for(choice) for choice in choices]
    keys = {
        str(key_of("target", choice, batch, ""))
        for choice, batch in zip(choices, batches, strict=True)
    }
    assert batches == [BatchDescriptor.of(16, 2)] * 2
    assert keys == {"target/full", "target/full/2 micro-batches"}


class Stage(stand_ins.Model):
    """A stage of a pipeline that is not the last one."""

    def forward(self, input_ids: Any, positions: Any, **more: Any) -> Any:
        from vllm.sequence import IntermediateTensors

        return IntermediateTensors({"hidden": super().forward(input_ids, positions, **more)})


def test_a_stage_of_a_pipeline_has_what_it_passes_on_as_outputs(arm: Arm) -> None:
    worker, runner = arm("enforce"), stand_ins.runner("FULL_DECODE_ONLY", make_model=Stage)
    manager = runner.cudagraph_manager
    manager.is_last_pp_rank = False
    runner.capture_model()

    worker.seal(runner)

    passed_on = manager.intermediate_tensors["hidden"]
    for signature in worker.target.guard.signatures:
        (output,) = signature.tensors[signature.num_inputs :]
        assert output.address == passed_on.data_ptr()
        assert output.shape == (signature.batch.num_tokens, stand_ins.WIDTH)
    # Stages agree on what NCCL has to find equal, which is not what they pass on.
    last = stand_ins.runner("FULL_DECODE_ONLY")
    last.capture_model()
    other = arm("enforce")
    other.seal(last)
    assert [s.shared_digest for s in other.target.guard.signatures] == [
        s.shared_digest for s in worker.target.guard.signatures
    ]
