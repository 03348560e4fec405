"""The libraries whose graphs are recorded, each from when the program has imported it."""

from __future__ import annotations

import sys
from typing import TYPE_CHECKING, Any

from graphguard.log import logger

if TYPE_CHECKING:
    from graphguard.program_graphs import ProgramGraphs
    from graphguard.recorders.spine import Adapter

LIBRARIES = ("torch", "cupy")
"""What a program imports that captures graphs."""

_EMULATED = "graphguard.graphs.emulated"
_RECORDER = "graphguard.recorders.c10d"


def watch(program: ProgramGraphs, adapters: list[Adapter]) -> None:
    """Tell ``program`` of every graph that this process captures from now on.

    Args:
        program: Who is told.
        adapters: Where the adapters are kept that tell it.

    Raises:
        ConfigurationError: If torch is loaded and not what graphguard was written for.
    """
    if "torch" in sys.modules:
        _watch_torch(program, adapters)
    waiting = {"cupy": _watch_cupy, _EMULATED: _watch_emulated}
    if "torch" not in sys.modules:
        waiting["torch"] = _watch_torch

    from graphguard.importing import after_import

    for module, begin in waiting.items():
        after_import(module, lambda begin=begin: _quietly(begin, program, adapters))  # type: ignore[misc]


def _quietly(begin: Any, program: ProgramGraphs, adapters: list[Adapter]) -> None:  # noqa: ANN401
    """Begin to watch a library that the program has just imported, which must go on."""
    if not program.active:
        return
    try:
        begin(program, adapters)
    except Exception as error:  # noqa: BLE001
        logger().warning("graphs are not recorded: %s", error)


def _watch_torch(program: ProgramGraphs, adapters: list[Adapter]) -> None:
    import torch

    from graphguard.breadcrumbs.process import wanted
    from graphguard.recorders.spine import torch_adapter

    if wanted():
        from graphguard.recorders.graph_marks import watch_launches

        # Before the adapter, so that a launch which it refuses is none.
        watch_launches(torch.cuda.CUDAGraph)
    adapter = torch_adapter(torch)
    adapter.install(program)
    adapters.append(adapter)
    _load_when_needed(torch)


def _watch_emulated(program: ProgramGraphs, adapters: list[Adapter]) -> None:
    from graphguard.graphs.emulated import EmulatedGraph
    from graphguard.recorders.spine_patches import PatchAdapter

    adapter = PatchAdapter(EmulatedGraph)
    adapter.install(program)
    adapters.append(adapter)


def _watch_cupy(program: ProgramGraphs, adapters: list[Adapter]) -> None:
    from cupy.cuda import nccl, stream

    from graphguard.recorders.spine_cupy import CupyAdapter

    adapter = CupyAdapter(stream._BaseStream, nccl)
    adapter.install(program)
    adapters.append(adapter)


def _load_when_needed(torch: Any) -> None:  # noqa: ANN401 - the module
    """Load what records before the first capture, and only in processes that use CUDA.

    It loads torch's compiler, which takes seconds. Torch has no public way to be told that CUDA is
    used; without this one, it is loaded within the first capture.
    """

    def load() -> None:
        try:
            import graphguard.recorders.c10d  # noqa: F401
        except Exception as error:  # noqa: BLE001 - the program must start without us
            logger().warning("captures will not be recorded: %r", error)

    lazy_call = getattr(torch.cuda, "_lazy_call", None)
    if lazy_call is not None and _RECORDER not in sys.modules:
        lazy_call(load)
