"""Faults, put into vLLM beneath graphguard's wrappers: as if vLLM itself had decided so.

Every place is patched from the start. What goes wrong there is in the settings, or is added while
the engine runs, by a line in a file that each worker looks at before each step.
"""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import msgspec

from graphguard.graphs.emulated import is_capturing
from tests.vllm.engine.emulation.patching import replace
from tests.vllm.engine.emulation.recording import worker
from tests.vllm.engine.emulation.settings import (
    Fault,
    FaultKind,
    Place,
    Settings,
    file_of_faults,
)

Function = Callable[..., Any]


class Armed:
    """A fault that may still happen in this process."""

    def __init__(self, fault: Fault) -> None:
        self.fault = fault
        self._steps: set[int] = set()

    def strikes(self) -> bool:
        """Say whether it happens in the step that runs, and count that step if it does."""
        fault, step = self.fault, worker.step
        if worker.rank != fault.rank or step < fault.step or worker.role != fault.role:
            return False
        if fault.num_reqs not in (None, worker.num_reqs):
            return False
        if fault.num_tokens not in (None, worker.num_tokens):
            return False
        if step not in self._steps:
            if len(self._steps) == fault.times:
                return False
            self._steps.add(step)
        return True

    def strikes_anew(self) -> bool:
        """Say whether it happens for the first time in the step that runs."""
        before = worker.step in self._steps
        return self.strikes() and not before


class Faults:
    """The faults of this process: all ranks' faults, of which only its own happen."""

    def __init__(self) -> None:
        self._armed: list[Armed] = []
        self._file = Path()
        self._read = 0

    def arm(self, told: Settings) -> None:
        """Arm what the settings say, and remember where more may come from."""
        self._armed = [Armed(fault) for fault in told.faults]
        self._file = file_of_faults(Path(told.directory))

    def look(self) -> None:
        """Arm what was added since the last look."""
        text = self._file.read_bytes()
        for line in text[self._read :].splitlines():
            self._armed.append(Armed(msgspec.json.decode(line, type=Fault)))
        self._read = len(text)

    def strike(self, kind: FaultKind) -> bool:
        """Say whether a fault of a kind happens in the step that runs."""
        return any(armed.strikes() for armed in self._armed if armed.fault.kind is kind)

    def strike_anew(self, kind: FaultKind) -> bool:
        """Say whether a fault of a kind happens for the first time in the step that runs."""
        return any(armed.strikes_anew() for armed in self._armed if armed.fault.kind is kind)

    def struck_at(self, place: Place, kinds: frozenset[FaultKind]) -> Fault | None:
        """Return a fault of some kinds that happens at a place for the first time in the step."""
        for armed in self._armed:
            fault = armed.fault
            if fault.kind in kinds and fault.place is place and armed.strikes_anew():
                return fault
        return None


faults = Faults()


def install(told: Settings) -> None:
    """Patch vLLM where things go wrong, and arm what goes wrong from the start."""
    from vllm.distributed.parallel_state import GroupCoordinator
    from vllm.v1.cudagraph_dispatcher import CudagraphDispatcher
    from vllm.v1.worker.gpu_model_runner import GPUModelRunner

    faults.arm(told)
    replace(CudagraphDispatcher, "dispatch", _dispatching)
    replace(GPUModelRunner, "_input_fits_in_drafter", _deciding_on_the_drafter)
    replace(GroupCoordinator, "all_reduce", _reducing)
    replace(GPUModelRunner, "_build_attention_metadata", _building_metadata)


def leaves_out_an_all_reduce() -> bool:
    """Say whether the next all-reduce is left out: of a replay, a capture or an eager run."""
    return faults.strike_anew(FaultKind.SKIPPED_ALL_REDUCE)


def _dispatching(original: Function) -> Function:
    from vllm.config import CUDAGraphMode
    from vllm.forward_context import BatchDescriptor

    def dispatch(self: Any, num_tokens: int, *args: Any, **kwargs: Any) -> Any:
        decided = original(self, num_tokens, *args, **kwargs)
        if not worker.step or decided[0] is CUDAGraphMode.NONE:
            return decided
        if faults.strike(FaultKind.EAGER):
            worker.write("fault", detail=f"NONE instead of {decided}")
            return CUDAGraphMode.NONE, BatchDescriptor(num_tokens)
        # vLLM says which mode is wanted only where it asks again, with what ranks have agreed on.
        if kwargs.get("valid_modes") and faults.strike(FaultKind.EAGER_ALONE):
            worker.write("fault", detail=f"NONE instead of {decided}, agreed on")
            return CUDAGraphMode.NONE, BatchDescriptor(num_tokens)
        larger = original(self, decided[1].num_tokens + 1, *args, **kwargs)
        if larger[0] is decided[0] and faults.strike(FaultKind.LARGER_GRAPH):
            worker.write("fault", detail=f"{larger} instead of {decided}")
            return larger
        return decided

    return dispatch


def _deciding_on_the_drafter(original: Function) -> Function:
    def input_fits_in_drafter(self: Any, *args: Any, **kwargs: Any) -> bool:
        fits: bool = original(self, *args, **kwargs)
        if fits and faults.strike(FaultKind.SKIPPED_DRAFTER):
            worker.write("fault", detail="the drafter is not run")
            return False
        return fits

    return input_fits_in_drafter


def _reducing(original: Function) -> Function:
    def all_reduce(self: Any, input_: Any) -> Any:
        # Runs before the first step are warm-ups, unless they are captured.
        if (worker.step or is_capturing()) and leaves_out_an_all_reduce():
            worker.write("fault", detail="an all-reduce is left out")
            return input_
        return original(self, input_)

    return all_reduce


def _building_metadata(original: Function) -> Function:
    def build(self: Any, num_tokens: int, num_reqs: int, **kwargs: Any) -> Any:
        built = original(self, num_tokens=num_tokens, num_reqs=num_reqs, **kwargs)
        padded = kwargs.get("num_tokens_padded") or num_tokens
        if worker.step and padded > num_tokens and faults.strike(FaultKind.LIVE_PADDING):
            for mapping in kwargs["slot_mappings"].values():
                mapping[num_tokens:padded] = mapping[0]
            for metadata in {id(m): m for m in built[0].values()}.values():
                metadata.block_table[num_reqs:] = metadata.block_table[0]
            worker.write("fault", detail=f"slots {num_tokens} to {padded} are live")
        return built

    return build
