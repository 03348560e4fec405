"""vLLM's real scheduler, with the worker and the model played: what they would answer."""

from __future__ import annotations

import dataclasses
import importlib.util
import random
import sys
from collections import deque
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any
from unittest.mock import MagicMock

from tests.vllm.engine.model import CONFIG

BLOCK = 16
STEPS = 20_000


@dataclasses.dataclass
class Step:
    """What a step scheduled.

    Attributes:
        lengths: Tokens by request.
        prefills: The requests among them that were not past their prompts.
        left_out: Requests past their prompts that ran and were not scheduled.
        waiting: How many requests waited to be admitted before the step.
        running: How many requests ran before the step.
    """

    lengths: dict[str, int]
    prefills: set[str]
    left_out: set[str]
    waiting: int
    running: int

    @property
    def is_uniform(self) -> bool:
        """Whether the step is of decodes of one length, or of prefills."""
        if self.prefills:
            return len(self.prefills) == len(self.lengths)
        return len(set(self.lengths.values())) <= 1


def do_without_gguf() -> None:
    """Let vLLM 0.20.1 be imported where the package gguf, which it needs for one format, is not."""
    if importlib.util.find_spec("gguf") is None:
        for name in ("gguf", "gguf.constants", "gguf.quants"):
            sys.modules.setdefault(name, MagicMock())


def vllm_config(
    directory: Path,
    *,
    drafts: int,
    asynchronous: bool,
    max_num_seqs: int = 16,
    budget: int = 64,
    prefix_caching: bool = True,
    max_model_len: int = 512,
) -> Any:
    """Return a configuration of the tiny model, with its MTP head where there are drafts."""
    do_without_gguf()
    from vllm.config import (
        CacheConfig,
        DeviceConfig,
        ModelConfig,
        ParallelConfig,
        SchedulerConfig,
        SpeculativeConfig,
        VllmConfig,
    )

    directory.mkdir(exist_ok=True)
    (directory / "config.json").write_text(CONFIG.read_text())
    model = ModelConfig(
        model=str(directory), skip_tokenizer_init=True, max_model_len=max_model_len, dtype="float32"
    )
    parallel = ParallelConfig()
    speculative = None
    if drafts:
        speculative = SpeculativeConfig(
            method="mtp",
            num_speculative_tokens=drafts,
            target_model_config=model,
            target_parallel_config=parallel,
        )
    cache = CacheConfig(block_size=BLOCK, enable_prefix_caching=prefix_caching)
    config = VllmConfig(
        model_config=model,
        parallel_config=parallel,
        speculative_config=speculative,
        cache_config=cache,
        device_config=DeviceConfig(device="cpu"),
        scheduler_config=SchedulerConfig(
            max_num_seqs=max_num_seqs,
            max_num_batched_tokens=budget,
            max_model_len=max_model_len,
            is_encoder_decoder=False,
            enable_chunked_prefill=True,
            async_scheduling=asynchronous,
        ),
    )
    # Without a platform that could do it, vLLM takes it back.
    config.scheduler_config.async_scheduling = asynchronous
    return config


def make_scheduler(cls: Any, config: Any, blocks: int = 1000) -> Any:
    """Return a scheduler of a class over so many blocks of KV cache."""
    import torch
    from vllm.v1.kv_cache_interface import FullAttentionSpec, KVCacheConfig, KVCacheGroupSpec
    from vllm.v1.structured_output import StructuredOutputManager

    config.cache_config.num_gpu_blocks = blocks
    spec = FullAttentionSpec(block_size=BLOCK, num_kv_heads=1, head_size=32, dtype=torch.float32)
    return cls(
        vllm_config=config,
        kv_cache_config=KVCacheConfig(
            num_blocks=blocks,
            kv_cache_tensors=[],
            kv_cache_groups=[KVCacheGroupSpec(["layer"], spec)],
        ),
        structured_output_manager=StructuredOutputManager(config),
        block_size=BLOCK,
        log_stats=False,
    )


class PlayedEngine:
    """An engine's loop around a scheduler: schedule, execute, and update some steps later.

    Attributes:
        steps: What was scheduled.
        outputs: The tokens that each request got.
        finished: The requests that are done.
        without_drafts: Requests that the drafter has nothing for.
    """

    def __init__(self, scheduler: Any, *, asynchronous: bool, seed: int = 0) -> None:
        from vllm.utils.hashing import sha256
        from vllm.v1.core.kv_cache_utils import get_request_block_hasher, init_none_hash

        init_none_hash(sha256)
        self.scheduler = scheduler
        self.asynchronous = asynchronous
        self.steps: list[Step] = []
        self.outputs: dict[str, list[int]] = {}
        self.finished: set[str] = set()
        self.without_drafts: set[str] = set()
        self._hasher = get_request_block_hasher(BLOCK, sha256)
        self._random = random.Random(seed)  # noqa: S311 - it plays a model
        self._in_flight: deque[tuple[Any, Any]] = deque()
        self._previous: set[str] = set()
        self._sampled: dict[str, int] = {}

    def add(self, request_id: str, prompt: Sequence[int], max_tokens: int) -> None:
        """Add a request."""
        from vllm.sampling_params import SamplingParams
        from vllm.v1.request import Request

        sampling = SamplingParams(max_tokens=max_tokens, ignore_eos=True)
        if hasattr(sampling, "update_from_generation_config"):
            sampling.update_from_generation_config({}, None)
        request = Request(
            request_id=request_id,
            prompt_token_ids=list(prompt),
            sampling_params=sampling,
            pooling_params=None,
            block_hasher=self._hasher,
        )
        self.outputs[request_id] = []
        self._sampled[request_id] = 0
        self.scheduler.add_request(request)

    def abort(self, request_id: str) -> None:
        """Abort a request."""
        from vllm.v1.request import RequestStatus

        self.finished.add(request_id)
        self.scheduler.finish_requests(request_id, RequestStatus.FINISHED_ABORTED)

    def run(self, steps: int = STEPS) -> None:
        """Run until nothing is left to do, or for so many steps.

        Raises:
            AssertionError: If something is left to do after all steps.
        """
        for _ in range(steps):
            if not self.scheduler.has_requests() and not self._in_flight:
                return
            self.step()
        raise AssertionError(f"after {steps} steps there are {self.scheduler.requests}")

    def step(self) -> None:
        """Schedule a step, and update from the oldest one where the queue is full."""
        if self.scheduler.has_requests():
            output = self._schedule()
            self._in_flight.append((output, self._execute(output)))
            depth = 2 if self.asynchronous else 1
            if len(self._in_flight) < depth and output.num_scheduled_tokens:
                return
        if self._in_flight:
            self._update(*self._in_flight.popleft())

    def _schedule(self) -> Any:
        scheduler = self.scheduler
        before = {r.request_id: r for r in scheduler.running}
        decodes = {name for name, r in before.items() if not r.is_prefill_chunk}
        waiting = scheduler.get_request_counts()[1]
        placeholders = {name: r.num_output_placeholders for name, r in before.items()}
        output = scheduler.schedule()
        lengths = dict(output.num_scheduled_tokens)
        running = {r.request_id for r in scheduler.running}
        left_out = (decodes & running) - set(lengths)
        left_out = {n for n in left_out if not self._is_done(before[n])}
        self.steps.append(Step(lengths, set(lengths) - decodes, left_out, waiting, len(before)))
        self._see_that_the_worker_knows(output, placeholders)
        return output

    def _is_done(self, request: Any) -> bool:
        sure = request.num_output_tokens + (1 if request.num_output_placeholders else 0)
        return bool(sure >= request.max_tokens)

    def _see_that_the_worker_knows(self, output: Any, placeholders: dict[str, int]) -> None:
        """The V1 runner has sampled tokens and drafts only of the step before."""
        if self.scheduler.use_v2_model_runner:
            return
        for name in output.scheduled_cached_reqs.req_ids:
            if name not in self._previous and self.asynchronous:
                drafts = output.scheduled_spec_decode_tokens.get(name, ())
                assert not drafts, f"{name} left out a step, its drafts are gone"
                assert not placeholders.get(name), f"the last token of {name} is not there yet"
        self._previous = set(output.num_scheduled_tokens)

    def _execute(self, output: Any) -> Any:
        from vllm.v1.outputs import ModelRunnerOutput

        names = list(output.num_scheduled_tokens)
        sampled = []
        for name in names:
            drafts = output.scheduled_spec_decode_tokens.get(name, ())
            taken = 0
            if not self.scheduler.requests[name].is_prefill_chunk:
                taken = 1 + self._random.randint(0, len(drafts))
            done = self._sampled[name]
            self._sampled[name] += taken
            sampled.append([token(name, done + i) for i in range(taken)])
        return ModelRunnerOutput(
            req_ids=names,
            req_id_to_index={name: index for index, name in enumerate(names)},
            sampled_token_ids=sampled,
            logprobs=None,
            prompt_logprobs_dict={},
            pooler_output=[],
        )

    def _drafted(self, name: str) -> int:
        if name in self.without_drafts:
            return 0
        if self.without_drafts:
            return int(self.scheduler.num_spec_tokens)
        return self._random.choice((0, self.scheduler.num_spec_tokens))

    def _update(self, output: Any, answer: Any) -> None:
        from vllm.v1.outputs import DraftTokenIds

        for outputs in self.scheduler.update_from_output(output, answer).values():
            for one in outputs.outputs:
                self.outputs[one.request_id] += one.new_token_ids
                if one.finish_reason is not None:
                    self.finished.add(one.request_id)
        if not self.asynchronous and self.scheduler.num_spec_tokens:
            drafts = [[7] * self._drafted(name) for name in answer.req_ids]
            self.scheduler.update_draft_token_ids(DraftTokenIds(answer.req_ids, drafts))


def token(request_id: str, position: int) -> int:
    """Return the output token of a request at a position."""
    return (hash_of(request_id) * 31 + position * 7) % 400 + 10


def hash_of(text: str) -> int:
    """Return a number of a text that is the same in every process."""
    return sum((index + 1) * ord(character) for index, character in enumerate(text))


def waits(steps: Sequence[Step]) -> Iterator[int]:
    """Yield, for each time that a ready decode was left out, how many steps in a row."""
    running: dict[str, int] = {}
    for step in steps:
        for name in list(running):
            if name not in step.left_out:
                yield running.pop(name)
        for name in step.left_out:
            running[name] = running.get(name, 0) + 1
    yield from running.values()
