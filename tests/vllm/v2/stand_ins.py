"""vLLM's own V2 runner, graph managers and wrappers, with stand-ins for what is below them.

The classes are those of the vLLM that is first on the path, and so is every choice that they make.
What is not real: CUDA graphs are graphguard's emulated ones, which are captured and replayed; the
model is small, and it has no attention and no KV cache; the group of ranks gives back what it is
given; and nothing here needs Triton, without which vLLM does not start this runner.
"""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from types import SimpleNamespace
from typing import Any
from unittest import mock

import numpy as np
import torch

from graphguard.graphs import emulated
from tests.vllm.device_communicators import coordinator

MAX_REQS = 16
MAX_TOKENS = 64
WIDTH = 4


def _cuda_graph(graph: emulated.EmulatedGraph, *_: Any, **__: Any) -> Any:
    return emulated.capture(graph)


@contextlib.contextmanager
def _pool(*_: Any) -> Iterator[None]:
    yield None


def prepared_inputs(*_: Any, skip_attn: bool = False, **__: Any) -> tuple[Any, Any]:
    """Stand for the metadata of a capture: what is not there, and what is empty."""
    return None if skip_attn else {}, {}


@contextlib.contextmanager
def emulated_cuda() -> Iterator[None]:
    """Let vLLM capture emulated graphs."""
    from vllm.compilation import cuda_graph, monitor
    from vllm.v1.worker.gpu import cudagraph_utils, model_runner

    modules: list[Any] = [cuda_graph, cudagraph_utils, model_runner]
    with contextlib.suppress(ImportError):
        from vllm.compilation import breakable_cudagraph

        modules.append(breakable_cudagraph)
    platform = SimpleNamespace(
        get_global_graph_pool=lambda: None,
        graph_pool_handle=lambda: None,
        set_additional_forward_context=lambda **_: {},
    )
    stage = SimpleNamespace(is_first_rank=True, is_last_rank=True)
    stand_ins: dict[str, Any] = {
        "current_platform": platform,
        "get_pp_group": lambda: stage,
        "graph_capture": lambda device: contextlib.nullcontext(),
        "is_global_first_rank": lambda: False,
        "capture_pool": _pool,
        "set_graph_pool_id": lambda pool: None,
        "current_stream": lambda: None,
        "weak_ref_tensors": lambda tensors: tensors,
        "weak_ref_tensor": lambda tensor: tensor,
        "prepare_inputs_to_capture": prepared_inputs,
        "has_compiled_submodule": lambda model: True,
        "build_slot_mappings_by_layer": lambda *_: {},
        "lock_workspace": lambda: None,
    }
    with contextlib.ExitStack() as patched:
        for module in modules:
            for name, stand_in in stand_ins.items():
                if hasattr(module, name):
                    patched.enter_context(mock.patch.object(module, name, stand_in))
        cuda: dict[str, Any] = {
            "CUDAGraph": emulated.EmulatedGraph,
            "graph": _cuda_graph,
            "mem_get_info": lambda: (0, 0),
        }
        cuda |= {"graph_pool_handle": lambda: None}
        patched.enter_context(mock.patch.multiple(torch.cuda, **cuda))
        device: dict[str, Any] = {"empty_cache": lambda: None, "synchronize": lambda *_: None}
        device |= {"get_memory_info": lambda: (0, 0)}
        patched.enter_context(mock.patch.multiple(torch.accelerator, **device))
        monitor.set_cudagraph_capturing_enabled(True)
        yield


def config(mode: str, query_len: int) -> Any:
    """Return vLLM's configuration of an engine whose decodes have this many tokens."""
    from vllm.config import CUDAGraphMode, DeviceConfig, VllmConfig

    made = VllmConfig(device_config=DeviceConfig(device="cpu"))
    sizes = [query_len * reqs for reqs in (1, 2, 4, 8, MAX_REQS)]
    made.compilation_config.cudagraph_mode = CUDAGraphMode[mode]
    made.compilation_config.cudagraph_capture_sizes = sizes
    made.compilation_config.max_cudagraph_capture_size = sizes[-1]
    made.scheduler_config.max_num_seqs = MAX_REQS
    return made


class Tensors:
    """A group of two ranks, of which the other one adds nothing."""

    def __init__(self) -> None:
        communicator = SimpleNamespace(world_size=2, all_reduce=torch.clone)
        self.group = coordinator("tp:0", communicator)

    def reduced(self, tensor: torch.Tensor) -> torch.Tensor:
        reduced: torch.Tensor = self.group.all_reduce(tensor)
        return reduced


class Model(torch.nn.Module):
    """Two pieces with a collective each, and what stands for attention between them."""

    def __init__(self, vllm_config: Any) -> None:
        from vllm.compilation.cuda_graph import CUDAGraphWrapper
        from vllm.config import CUDAGraphMode

        super().__init__()
        self.eager_runs = 0
        self.tensors = Tensors()
        self.pieces = [
            CUDAGraphWrapper(piece, vllm_config, CUDAGraphMode.PIECEWISE)
            for piece in (self.first, self.second)
        ]

    def forward(self, input_ids: Any, positions: Any, **_: Any) -> torch.Tensor:
        hidden = self.pieces[0](input_ids)
        self.eager_runs += 1
        # In place, as attention writes into a buffer that the next piece reads.
        hidden.add_(1)
        last: torch.Tensor = self.pieces[1](hidden)
        return last

    def first(self, input_ids: torch.Tensor) -> torch.Tensor:
        hidden = input_ids[:, None].float().expand(-1, WIDTH) * 2
        return self.tensors.reduced(hidden.contiguous())

    def second(self, hidden: torch.Tensor) -> torch.Tensor:
        return self.tensors.reduced(hidden * 3)


def buffers() -> Any:
    """Return vLLM's own static input buffers."""
    from vllm.v1.worker.gpu.input_batch import InputBuffers

    return InputBuffers(MAX_REQS, MAX_TOKENS, torch.device("cpu"))


class States:
    """What the runner keeps of its requests on the host, in the form it has there."""

    def __init__(self) -> None:
        self.req_id_to_index: dict[str, int] = {}
        self.num_computed_prefill_tokens = np.zeros(MAX_REQS, dtype=np.int32)
        self.prefill_len = SimpleNamespace(np=np.zeros(MAX_REQS, dtype=np.int32))
        self.max_seq_len = np.zeros(MAX_REQS, dtype=np.int32)
        self.num_computed_tokens = SimpleNamespace(gpu=None)

    def set(self, requests: list[tuple[int, int]]) -> list[str]:
        """Take requests, of each its computed and its prompt tokens; return their names."""
        names = [f"r{place}" for place in range(len(requests))]
        # Rows are not in the order of the batch.
        self.req_id_to_index = {name: MAX_REQS - 1 - row for row, name in enumerate(names)}
        for name, (computed, prompt) in zip(names, requests, strict=True):
            row = self.req_id_to_index[name]
            self.num_computed_prefill_tokens[row] = min(computed, prompt)
            self.prefill_len.np[row] = prompt
        return names


def scheduled(lengths: dict[str, int], drafts: dict[str, int] | None = None) -> Any:
    """Return what the scheduler asks for: tokens of each request, drafts among them."""
    from vllm.v1.core.sched.output import SchedulerOutput

    made = SchedulerOutput.make_empty()
    made.num_scheduled_tokens = dict(lengths)
    made.total_num_scheduled_tokens = sum(lengths.values())
    made.scheduled_spec_decode_tokens = {
        name: [-1] * count for name, count in (drafts or {}).items()
    }
    return made


def runner(mode: str = "FULL_AND_PIECEWISE", query_len: int = 2, *, make_model: Any = None) -> Any:
    """Return vLLM's own V2 runner with real graph managers; what needs Triton is left out."""
    from vllm.config import CUDAGraphMode
    from vllm.v1.worker.gpu import model_runner
    from vllm.v1.worker.gpu.cudagraph_utils import ModelCudaGraphManager

    class Runner(model_runner.GPUModelRunner):  # type: ignore[misc]
        """The runner from the scheduler's output to the launch of the model."""

        # Properties in some versions.
        dp_size, dp_rank = 1, 0

        def __init__(self) -> None:
            self.vllm_config = config(mode, query_len)
            self.parallel_config = self.vllm_config.parallel_config
            self.device = torch.device("cpu")
            self.decode_query_len, self._draft_workspace_lane = query_len, 0
            self.num_speculative_steps = query_len - 1
            self.max_num_reqs = MAX_REQS
            self.req_states = States()
            self.input_buffers = buffers()
            self.model = (make_model or Model)(self.vllm_config)
            self.speculator = None
            self.descriptors: list[Any] = []
            self.is_first_pp_rank = self.is_last_pp_rank = True
            absent: tuple[str, ...] = ("is_encoder_decoder", "supports_mm_inputs", "use_pp")
            absent += ("uses_inputs_embeds", "use_aux_hidden_state_outputs", "dcp_size")
            for name in absent:
                setattr(self, name, False)
            self.pcp_manager = self.ubatch_runner = self.aux_output_connector = None
            self.adaptive_verification = self.encoder_cache = self.lora_config = None
            self.new_manager()

        def new_manager(self) -> None:
            self.cudagraph_manager = ModelCudaGraphManager(
                self.vllm_config, self.device, CUDAGraphMode[mode], decode_query_len=query_len
            )

        def __getattr__(self, name: str) -> Any:
            self.__dict__[name] = stand_in = mock.MagicMock(name=name)
            if name == "model_state":
                stand_in.prepare_inputs.return_value = {}
                stand_in.prepare_dummy_inputs.return_value = {}
            return stand_in

        def update_requests(self, *_: Any) -> None: ...

        finish_requests = free_states = add_requests = update_requests
        update_pp_decode_requests = update_requests

        def prepare_inputs(self, scheduler_output: Any, *given: Any) -> Any:
            descriptor = next(it for it in given if hasattr(it, "cg_mode"))
            self.descriptors.append(descriptor)
            padded = descriptor.num_tokens
            return SimpleNamespace(
                input_ids=self.input_buffers.input_ids[:padded],
                positions=self.input_buffers.positions[:padded],
                num_tokens=scheduler_output.total_num_scheduled_tokens,
                num_tokens_after_padding=padded,
                is_padding=None,
            )

        def prepare_attn(self, *_: Any) -> tuple[None, None]:
            return (), ()  # type: ignore[return-value]

    return Runner()
