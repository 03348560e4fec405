"""Stand-ins for ``torch.cuda.CUDAGraph`` and ``torch.cuda.graph``, and what they need."""

from __future__ import annotations

from collections import Counter
from contextlib import nullcontext
from types import TracebackType
from typing import Any

import torch
from torch._ops import OpOverload

from graphguard.graphs.emulated import EmulatedGraph, add_observer, remove_observer
from graphguard.graphs.emulated_steps import replay as replay_steps
from tests.vllm.engine.emulation import faults
from tests.vllm.engine.emulation.recording import descriptor_fields, worker

ALL_REDUCE = "_C::shm_allreduce"
"""What vLLM's CPU communicator calls: the collective that a graph of this engine holds."""


class EmulatedCudaGraph(EmulatedGraph):
    """An emulated graph with the surface of ``torch.cuda.CUDAGraph`` that vLLM uses."""

    def __init__(self, *_args: object, **_kwargs: object) -> None:
        super().__init__()
        self._fields: dict[str, Any] = {}
        self._operators: Counter[str] = Counter()

    def capture_begin(self, *_args: object, **_kwargs: object) -> None:
        """Begin to record."""
        self._fields = {"role": worker.role, **descriptor_fields()}
        worker.num_tokens = self._fields.get("num_tokens", 0)
        worker.num_reqs = self._fields.get("num_reqs") or 0
        self._operators.clear()
        add_observer(self._count)
        super().capture_begin()

    def capture_end(self, failure: BaseException | None = None) -> None:
        """End the recording; with ``failure``, which is being handled, throw it away."""
        remove_observer(self._count)
        super().capture_end()
        if failure is None:
            worker.write("capture", **self._fields, operators=dict(self._operators))

    def replay(self) -> None:
        """Run what was recorded."""
        worker.write("replay", **self._fields)
        if self._operators[ALL_REDUCE] and faults.leaves_out_an_all_reduce():
            worker.write("fault", detail="a replay without its first all-reduce")
            self._replay_without_first(ALL_REDUCE)
        else:
            super().replay()

    def _replay_without_first(self, operator: str) -> None:
        steps = list(self._steps or ())
        steps.remove(next(step for step in steps if step.func.name() == operator))
        replay_steps(steps)

    def _count(self, func: OpOverload, _args: object, _kwargs: object) -> None:
        self._operators[func.name()] += 1


class EmulatedCapture:
    """What ``torch.cuda.graph`` is: a context manager that captures into a graph."""

    def __init__(self, cuda_graph: EmulatedCudaGraph, *_args: object, **_kwargs: object) -> None:
        self._graph = cuda_graph

    def __enter__(self) -> None:
        self._graph.capture_begin()

    def __exit__(
        self,
        _kind: type[BaseException] | None,
        error: BaseException | None,
        _traceback: TracebackType | None,
    ) -> None:
        self._graph.capture_end(error)


class _BreakingAttention:
    """The attention operator, which a breakable capture can see into.

    CUDA sees what the Python kernel of a custom operator does, and vLLM breaks the capture in
    there. An emulated capture records the operator and never comes to its kernel.
    """

    def __init__(self) -> None:
        self._operator = torch.ops.vllm.unified_attention_with_output

    def __getattr__(self, name: str) -> Any:
        return getattr(self._operator, name)

    def __call__(self, *args: Any, **kwargs: Any) -> Any:
        from vllm.compilation.breakable_cudagraph import BreakableCUDAGraphCapture
        from vllm.config import CUDAGraphMode
        from vllm.forward_context import get_forward_context
        from vllm.model_executor.layers.attention import attention

        if BreakableCUDAGraphCapture.is_active():
            mode = get_forward_context().cudagraph_runtime_mode
            if mode is not CUDAGraphMode.FULL:
                return attention.unified_attention_with_output(*args, **kwargs)
        return self._operator(*args, **kwargs)


def break_at_attention() -> None:
    """Let breakable captures break at attention, once per process."""
    # The operator is registered where it is written.
    import vllm.model_executor.layers.attention.attention  # noqa: F401

    operators: Any = torch.ops.vllm
    operators.unified_attention_with_output = _BreakingAttention()


def install() -> None:
    """Put the stand-ins where vLLM looks for graphs, once per process."""
    from vllm.compilation import breakable_cudagraph, cuda_graph
    from vllm.platforms.cpu import CpuPlatform
    from vllm.v1.attention.backend import AttentionCGSupport
    from vllm.v1.attention.backends.cpu_attn import CPUAttentionMetadataBuilder
    from vllm.v1.worker import gpu_model_runner

    replace: Any = setattr
    replace(torch.cuda, "CUDAGraph", EmulatedCudaGraph)
    replace(torch.cuda, "graph", EmulatedCapture)
    for module in (cuda_graph, breakable_cudagraph):
        # Results belong to the graph, which lives as long as the wrapper's entry: nothing is
        # gained by weak references, and making them is a CUDA kernel.
        replace(module, "weak_ref_tensors", lambda tensors: tensors)
        replace(module, "capture_pool", lambda pool, _config: nullcontext(pool))
    replace(breakable_cudagraph, "weak_ref_tensor", lambda tensor: tensor)
    replace(gpu_model_runner, "graph_capture", lambda device: nullcontext())
    replace(CpuPlatform, "graph_pool_handle", staticmethod(lambda: (0, 0)))
    # What vLLM's attention backends on CUDA say for uniform batches. It holds here: the metadata
    # is read from the forward context at every replay.
    replace(CPUAttentionMetadataBuilder, "_cudagraph_support", AttentionCGSupport.UNIFORM_BATCH)
