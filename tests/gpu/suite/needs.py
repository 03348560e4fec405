"""What stages need, and the words in which they say that it is not there."""

from __future__ import annotations

import os
from collections.abc import Callable
from functools import partial
from pathlib import Path

from tests.gpu.suite.settings import Settings

Need = Callable[[Settings], str]
"""Returns why something is missing, or nothing."""

NCCL_FOR_TWO_RANKS = (2, 30)


def device(settings: Settings) -> str:
    """Need torch and a CUDA device that it sees."""
    if settings.emulated:
        return ""
    try:
        import torch
    except ImportError as error:
        return f"torch cannot be imported: {error}"
    if not torch.cuda.is_available():
        built_for = torch.version.cuda
        if built_for is None:
            return f"torch {torch.__version__} is built without CUDA"
        return f"torch {torch.__version__} (CUDA {built_for}) sees no CUDA device"
    return ""


def two_ranks(settings: Settings) -> str:
    """Need two devices, or an NCCL that takes two ranks on one."""
    if settings.emulated:
        return ""
    if missing := device(settings):
        return missing
    import torch

    if torch.cuda.device_count() >= 2 or settings.nccl:
        return ""
    version = torch.cuda.nccl.version()
    if tuple(version) >= NCCL_FOR_TWO_RANKS:
        return ""
    wanted = ".".join(map(str, NCCL_FOR_TWO_RANKS))
    have = ".".join(map(str, version))
    return f"one device, and NCCL {have} takes no two ranks on it: give --nccl one from {wanted} on"


def _vllm(version: str, settings: Settings) -> str:
    folder = settings.vllm.get(version)
    if folder is None:
        return f"no vLLM {version} was brought: give --vllm {version}=FOLDER"
    if not Path(folder, "vllm", "__init__.py").is_file():
        return f"{folder} holds no vLLM"
    return device(settings)


def vllm(version: str) -> Need:
    """Need a vLLM of a version, and a device."""
    return partial(_vllm, version)


def real_graphs(settings: Settings) -> str:
    """Need graphs of CUDA: what is emulated is of no use."""
    return "emulated graphs cannot stand in here" if settings.emulated else ""


def brought_nccl(settings: Settings) -> str:
    """Need an NCCL that was brought; the one of torch takes no two ranks on one device."""
    return "" if settings.nccl else "no NCCL was brought: give --nccl"


def unmet(settings: Settings, wanted: tuple[Need, ...]) -> str:
    """Return the first need that is not met, in words."""
    return next((why for need in wanted if (why := need(settings))), "")


def two_rank_environment(settings: Settings) -> dict[str, str]:
    """Return the environment of ranks that may share a device."""
    own = {
        "NCCL_MULTI_RANK_GPU_ENABLE": "1",
        "NCCL_NVLS_ENABLE": "0",
        # Both ranks' kernels have to fit on the device at once.
        "NCCL_MAX_CTAS": "2",
    }
    if settings.nccl:
        others = [path for path in os.environ.get("LD_PRELOAD", "").split(":") if path]
        own["LD_PRELOAD"] = ":".join([settings.nccl, *others])
        own["GRAPHGUARD_NCCL_SO"] = settings.nccl
        own["VLLM_NCCL_SO_PATH"] = settings.nccl
    return {**os.environ, **own}
