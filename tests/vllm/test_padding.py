"""The padded slots that vLLM's own V1 runner leaves, and damage done to them.

The runner is the real one of the CPU build, without an engine: it prepares and pads the batches.
V2 needs Triton, so of V2 only the classes are real and the values are what its kernels would write.
"""

from __future__ import annotations

import os
import random
import signal
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

import msgspec
import pytest

from graphguard.vllm.padding import Invariant
from tests.vllm.padding_program import MAX_REQS, Scenario, Seen

REPOSITORY = Path(__file__).parents[2]
SECONDS = 240
TENSORS = [
    "optimistic_seq_lens_cpu",
    "seq_lens",
    "query_start_loc",
    "block_table[0]",
    "slot_mapping[0]",
    "positions",
]
DAMAGE = {
    "length": {Invariant.SEQ_LEN},
    "negative length": {Invariant.SEQ_LEN, Invariant.CONTEXT_LENGTH},
    "slot": {Invariant.SLOT_MAPPING},
    "block": {Invariant.BLOCK_TABLE},
    "start": {Invariant.QUERY_START},
    "position": {Invariant.POSITION},
}


def sound_steps() -> list[Scenario]:
    """Steps of all sizes, large before small, so that small ones find what large ones left."""
    chosen = random.Random(20_261_121)  # noqa: S311 - numbers, no secrets
    steps = [Scenario([chosen.randint(1, 100) for _ in range(MAX_REQS)], 2, MAX_REQS)]
    for num_reqs in (15, 15, 9, 3, 1, *chosen.choices(range(1, MAX_REQS + 1), k=40)):
        lengths = [chosen.randint(1, 100) for _ in range(num_reqs)]
        steps.append(Scenario(lengths, chosen.choice([1, 2, 2, 3]), chosen.randint(num_reqs, 16)))
    return steps


@pytest.fixture(scope="module")
def seen() -> dict[str, list[tuple[Scenario, Seen]]]:
    """What was seen of the sound steps, under no name, and of each damage, under its name."""
    damaged = [Scenario([30] * 15, 2, 16, name) for name in DAMAGE]
    steps = [*sound_steps(), *damaged]
    by_damage: dict[str, list[tuple[Scenario, Seen]]] = {}
    for step, result in zip(steps, run(steps), strict=True):
        by_damage.setdefault(step.damage, []).append((step, result))
    return by_damage


def run(steps: list[Scenario]) -> list[Seen]:
    """Let a runner in a process of its own take the steps."""
    environment = os.environ | {
        "PYTHONPATH": str(REPOSITORY),
        "VLLM_CPU_KVCACHE_SPACE": "1",
        "VLLM_PLUGINS": "",
        "HF_HUB_OFFLINE": "1",
    }
    with process(environment) as child:
        out, error = child.communicate(msgspec.json.encode(steps), timeout=SECONDS)
    assert child.returncode == 0, error.decode()[-4000:]
    return msgspec.json.decode(out, type=list[Seen])


@contextmanager
def process(environment: dict[str, str]) -> Iterator[subprocess.Popen[bytes]]:
    """Start a process that is gone afterwards, with all it started."""
    child = subprocess.Popen(
        [sys.executable, "-m", "tests.vllm.padding_program"],
        cwd=REPOSITORY,
        env=environment,
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        start_new_session=True,
    )
    try:
        yield child
    finally:
        with suppress(ProcessLookupError):
            os.killpg(child.pid, signal.SIGKILL)
        child.wait()


def test_what_vllm_pads_itself_is_sound(seen: dict[str, list[tuple[Scenario, Seen]]]) -> None:
    padded = [(s, r) for s, r in seen[""] if len(s.lengths) < s.num_reqs_padded]
    assert len(padded) >= 30
    for scenario, result in seen[""]:
        assert (result.findings, result.sampled) == ([], []), scenario
    for _, result in padded:
        assert result.tensors == TENSORS
        assert result.all_seen


@pytest.mark.parametrize("damage", DAMAGE)
def test_damage_to_a_padded_slot_of_the_seeds_step_is_found(
    seen: dict[str, list[tuple[Scenario, Seen]]], damage: str
) -> None:
    ((_, result),) = seen[damage]
    assert {finding.invariant for finding in result.findings} == DAMAGE[damage]
    assert {finding.invariant for finding in result.sampled} == DAMAGE[damage]


@pytest.fixture
def _no_gradients() -> Iterator[None]:
    import torch

    with torch.inference_mode():
        yield


@pytest.mark.usefixtures("_no_gradients")
@pytest.mark.filterwarnings("default")
def test_the_padding_of_a_v2_step_is_seen_in_vllms_own_classes() -> None:
    import torch
    from vllm.v1.worker.gpu.cudagraph_utils import BatchExecutionDescriptor
    from vllm.v1.worker.gpu.input_batch import InputBatch, InputBuffers

    from graphguard.vllm.padding import violations
    from graphguard.vllm.padding_views_v2 import extent_of_v2, view_of_v2

    buffers = InputBuffers(16, 64, torch.device("cpu"))
    batch = InputBatch.make_dummy(15, 30, buffers)
    desc = BatchExecutionDescriptor(cg_mode=None, num_tokens=32, num_reqs=16, uniform_token_count=2)
    # What prepare_inputs does for a FULL graph.
    batch.num_reqs_after_padding, batch.num_tokens_after_padding = 16, 32
    batch.query_start_loc_np = buffers.query_start_loc[:17].numpy()
    batch.seq_lens_cpu_upper_bound = torch.zeros(16, dtype=torch.int32)

    assert extent_of_v2(batch, desc) == (15, 16, 30, 32, 2)
    view = view_of_v2(batch, desc)
    assert [tail.name for tail in view.lengths] == ["seq_lens_cpu_upper_bound"]
    assert violations(view) == []
    batch.seq_lens_cpu_upper_bound[15] = 1
    assert [finding.slot for finding in violations(view_of_v2(batch, desc))] == [15]
