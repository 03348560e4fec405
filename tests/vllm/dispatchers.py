"""Real dispatchers of vLLM, made without an engine, and captures that nobody made."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

from graphguard.environment import Mode
from graphguard.session import Session
from graphguard.vllm.captures import Captures, Choice, Piece
from graphguard.vllm.model_guard import ModelGuard
from graphguard.vllm.options import Options
from graphguard.vllm.steps_v1 import StepsV1

SIZES = [2, 4, 8, 16, 32]


class _Wrapper:
    """Stands for vLLM's ``CUDAGraphWrapper``, which a capture belongs to."""


wrapper = _Wrapper()


def dispatcher(mode: str = "FULL_AND_PIECEWISE", query_len: int = 2) -> Any:
    """Return vLLM's own dispatcher for a model with one draft token a step."""
    from vllm.config import CompilationConfig, CompilationMode, CUDAGraphMode
    from vllm.v1.cudagraph_dispatcher import CudagraphDispatcher

    compilation = CompilationConfig(
        mode=CompilationMode.VLLM_COMPILE,
        cudagraph_mode=CUDAGraphMode[mode],
        cudagraph_capture_sizes=list(SIZES),
    )
    compilation.max_cudagraph_capture_size = SIZES[-1]
    compilation.set_splitting_ops_for_v1(all2all_backend="naive")
    config = SimpleNamespace(
        compilation_config=compilation,
        speculative_config=SimpleNamespace(num_speculative_tokens=query_len - 1),
        num_speculative_tokens=query_len - 1,
        scheduler_config=SimpleNamespace(max_num_seqs=16),
        lora_config=None,
    )
    made = CudagraphDispatcher(config)
    made.initialize_cudagraph_keys(CUDAGraphMode[mode], query_len)
    return made


def captured(of: Any) -> Captures:
    """Return what vLLM would have captured for every key of a dispatcher."""
    captures = Captures()
    for mode, descriptors in of.get_capture_descs():
        for descriptor in descriptors:
            captures.add(wrapper, Choice(mode.name, descriptor), Piece((), (), (), "none", ""))
    return captures


def steps(of: Any, mode: str = "enforce", role: str = "target", **options: Any) -> StepsV1:
    """Return the steps of a model whose graphs are those of a dispatcher."""
    from vllm.config import CUDAGraphMode

    settings = Options(Mode(mode), **options)
    made = StepsV1(ModelGuard(role, settings.mode, Session()), settings)
    made.take(captured(of), CUDAGraphMode)
    return made
