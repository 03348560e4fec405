"""A real V1 runner of vLLM's CPU build that pads batches as a FULL graph needs them.

Run in a process of its own: vLLM changes torch and opens process groups when a runner is made.
It reads scenarios as JSON from standard input and writes what was seen to standard output.
"""

from __future__ import annotations

import os
import sys
import tempfile
from pathlib import Path
from typing import Any

import msgspec
import numpy as np
import torch

from graphguard.vllm.padding import PaddingFinding, violations
from graphguard.vllm.padding_samples import PaddingSamples
from graphguard.vllm.padding_views import Extent, V1Metadata

BLOCK_SIZE = 32
MAX_REQS = 16
_BLOCKS_EACH = 4


class Scenario(msgspec.Struct):
    """One step.

    Attributes:
        lengths: Tokens that each request has computed before the step.
        query_len: Query tokens of each request.
        num_reqs_padded: Requests of the graph.
        damage: What is done to the padded slots before they are looked at.
    """

    lengths: list[int]
    query_len: int
    num_reqs_padded: int
    damage: str = ""


class Seen(msgspec.Struct):
    """What was seen of it, and how much there was to see."""

    findings: list[PaddingFinding]
    sampled: list[PaddingFinding]
    tensors: list[str]
    all_seen: bool


def main() -> None:
    """Pad every scenario and look."""
    scenarios = msgspec.json.decode(sys.stdin.buffer.read(), type=list[Scenario])
    # vLLM writes to standard output as well.
    out = os.fdopen(os.dup(1), "wb")
    os.dup2(2, 1)
    with tempfile.TemporaryDirectory() as directory, torch.inference_mode():
        runner = make_runner(Path(directory))
        metadata = V1Metadata(runner)
        seen = [step(runner, metadata, scenario) for scenario in scenarios]
    out.write(msgspec.json.encode(seen))
    out.flush()


def make_runner(directory: Path) -> Any:
    """Make a runner with caches, without an engine, from the tiny model of the engine tests."""
    from vllm.config import set_current_vllm_config
    from vllm.distributed.parallel_state import (
        init_distributed_environment,
        initialize_model_parallel,
    )
    from vllm.engine.arg_utils import EngineArgs
    from vllm.platforms import current_platform
    from vllm.v1.core.kv_cache_utils import get_kv_cache_configs
    from vllm.v1.worker.cpu_model_runner import CPUModelRunner
    from vllm.v1.worker.worker_base import record_kv_cache_layout
    from vllm.v1.worker.workspace import init_workspace_manager

    from tests.vllm.engine import model

    config = EngineArgs(
        model=str(model.write(directory / "model")),
        skip_tokenizer_init=True,
        max_model_len=512,
        max_num_seqs=MAX_REQS,
        block_size=BLOCK_SIZE,
        enforce_eager=True,
        speculative_config={"method": "mtp", "num_speculative_tokens": 1},
    ).create_engine_config()
    current_platform.register_triton_kernel_overrides()
    with set_current_vllm_config(config):
        init_distributed_environment(
            1, 0, f"file://{directory}/rendezvous", local_rank=0, backend="gloo"
        )
        initialize_model_parallel(1)
        init_workspace_manager(torch.device("cpu"), 1)
        runner = CPUModelRunner(config, torch.device("cpu"))
        runner.load_model()
        specs = runner.get_kv_cache_spec()
        # What the engine core would settle between its workers.
        record_kv_cache_layout(config.cache_config, "LBNHC")
        caches = get_kv_cache_configs(config, [specs], [64 << 20])
        config.cache_config.num_gpu_blocks = caches[0].num_blocks
        runner.initialize_kv_cache(caches[0])
    return runner


def step(runner: Any, metadata: V1Metadata, scenario: Scenario) -> Seen:
    """Let the runner prepare and pad one step, and look at what it left in the padded slots."""
    reqs, query_len = len(scenario.lengths), scenario.query_len
    tokens, tokens_padded = reqs * query_len, scenario.num_reqs_padded * query_len
    extent = Extent(reqs, scenario.num_reqs_padded, tokens, tokens_padded, query_len)
    output = _schedule(runner, scenario)
    runner._update_states(output)
    runner._prepare_inputs(output, np.full(reqs, query_len, dtype=np.int32))
    slots, _ = runner._get_slot_mappings(tokens_padded, scenario.num_reqs_padded, tokens)
    runner._build_attention_metadata(
        num_tokens=tokens,
        num_reqs=reqs,
        max_query_len=query_len,
        num_tokens_padded=tokens_padded,
        num_reqs_padded=scenario.num_reqs_padded,
        num_scheduled_tokens=output.num_scheduled_tokens,
        slot_mappings=slots,
    )
    _damage(runner, scenario, reqs, tokens)
    view = metadata.view(extent)
    named = [*view.lengths, view.query_start, *view.block_tables, *view.slot_mappings]
    samples = PaddingSamples(every=1)
    samples.due()
    samples.take(metadata.tensors(extent))
    return Seen(
        violations(view),
        samples.findings(),
        [tail.name for tail in [*named, view.positions] if tail is not None],
        metadata.all_seen,
    )


def _schedule(runner: Any, scenario: Scenario) -> Any:
    """Return what the scheduler would: the requests of the last step are over, these are new."""
    from vllm import SamplingParams
    from vllm.v1.core.sched.output import CachedRequestData, NewRequestData, SchedulerOutput

    last = set(runner.input_batch.req_id_to_index)
    ids = [f"{runner.__dict__.setdefault('_made', 0) + index}" for index in range(MAX_REQS)]
    runner._made += MAX_REQS
    new = [
        NewRequestData(
            req_id=name,
            prompt_token_ids=[7] * (computed + scenario.query_len),
            mm_features=[],
            sampling_params=SamplingParams(temperature=0.0),
            pooling_params=None,
            # Blocks other than the null block, so that rows left behind by a step show.
            block_ids=([1 + index * _BLOCKS_EACH + block for block in range(_BLOCKS_EACH)],),
            num_computed_tokens=computed,
            lora_request=None,
        )
        for index, (name, computed) in enumerate(zip(ids, scenario.lengths, strict=False))
    ]
    scheduled = {request.req_id: scenario.query_len for request in new}
    return SchedulerOutput(
        scheduled_new_reqs=new,
        scheduled_cached_reqs=CachedRequestData.make_empty(),
        num_scheduled_tokens=scheduled,
        total_num_scheduled_tokens=sum(scheduled.values()),
        scheduled_spec_decode_tokens={},
        scheduled_encoder_inputs={},
        num_common_prefix_blocks=[0],
        finished_req_ids=last,
        free_encoder_mm_hashes=[],
    )


def _damage(runner: Any, scenario: Scenario, reqs: int, tokens: int) -> None:
    table = runner.input_batch.block_table[0]
    match scenario.damage:
        case "length":
            runner.seq_lens[reqs] = 1
        case "negative length":
            runner.seq_lens[reqs] = -1
        case "slot":
            table.slot_mapping.gpu[tokens] = int(table.slot_mapping.gpu[0])
        case "block":
            table.block_table.gpu[reqs] = table.block_table.gpu[0]
        case "start":
            runner.query_start_loc.gpu[reqs + 1 :] = 0
        case "position":
            runner.positions[tokens] = runner.max_model_len


if __name__ == "__main__":
    main()
