"""The hooks that say what a worker is doing, for the watchdog to see when it does not end.

They stand around methods of the worker and not of a runner: these have the same names and meanings
with the V1 and the V2 runner. Only what a runner hands over to another thread is hooked there.
"""

from __future__ import annotations

import sys
from typing import Any

from graphguard.blackbox.pulse import ActivityKind
from graphguard.vllm.activities import OUTPUT, STEP, activities
from graphguard.vllm.patches import Function, wrap

WORKERS = (("vllm.v1.worker.gpu_worker", "Worker"), ("vllm.v1.worker.cpu_worker", "CPUWorker"))
STEPS = ("execute_model", "sample_tokens", "execute_dummy_batch")
START_UP = ("load_model", "determine_available_memory", "compile_or_warm_up_model")
V1 = "vllm.v1.worker.gpu_model_runner"
V2 = "vllm.v1.worker.gpu.model_runner"
V2_OUTPUTS = "vllm.v1.worker.gpu.async_utils"
_OUTPUTS = {
    V1: ("AsyncGPUModelRunnerOutput", "AsyncGPUPoolingModelRunnerOutput"),
    V2_OUTPUTS: ("AsyncOutput", "AsyncPoolingOutput"),
}


def install() -> None:
    """Put the hooks in place in the workers that are imported. Called again, it does nothing.

    A worker for another device inherits most of these methods and has some of its own.
    """
    for module, name in WORKERS:
        worker = getattr(sys.modules.get(module), name, None)
        if worker is None:
            continue
        _wrap_own(worker, ("init_device",), _init_device)
        _wrap_own(worker, START_UP, _start_up)
        _wrap_own(worker, STEPS, _step)


def install_in_runner_v1() -> None:
    """Put the hooks in place around captures and outputs of the V1 runner."""
    _install_in_runner(V1, V1)


def install_in_runner_v2() -> None:
    """Put the hooks in place around captures and outputs of the V2 runner."""
    _install_in_runner(V2, V2_OUTPUTS)


def _install_in_runner(runner: str, outputs: str) -> None:
    wrap(sys.modules[runner].GPUModelRunner, "capture_model", _capture_model)
    for name in _OUTPUTS[outputs]:
        # A version may have no models that pool.
        if (output := getattr(sys.modules[outputs], name, None)) is not None:
            wrap(output, "get_output", _get_output)


def _wrap_own(worker: Any, names: tuple[str, ...], make: Any) -> None:  # noqa: ANN401 - vLLM's own
    for name in names:
        if name in vars(worker):
            wrap(worker, name, make)


def _init_device(original: Function) -> Function:
    def init_device(self: Any, *args: Any, **kwargs: Any) -> Any:  # noqa: ANN401
        result = original(self, *args, **kwargs)
        # The rank is known from here on, and the black box is named after it.
        activities.start()
        return result

    return init_device


def _start_up(original: Function) -> Function:
    name = original.__name__

    def start_up(self: Any, *args: Any, **kwargs: Any) -> Any:  # noqa: ANN401
        with activities.during(ActivityKind.STARTUP, name):
            return original(self, *args, **kwargs)

    return start_up


def _capture_model(original: Function) -> Function:
    def capture_model(self: Any, *args: Any, **kwargs: Any) -> Any:  # noqa: ANN401
        with activities.during(ActivityKind.CAPTURE, "capture_model"):
            return original(self, *args, **kwargs)

    return capture_model


def _step(original: Function) -> Function:
    name, number = original.__name__, _Number()
    own = activities

    def step(self: Any, *args: Any, **kwargs: Any) -> Any:  # noqa: ANN401
        ring = own.ring
        if ring is None:
            return original(self, *args, **kwargs)
        if number.ring is not ring:
            number.look_up(name)
        own.steps = count = own.steps + 1
        ring.begin_activity(STEP, number.value, count)
        try:
            return original(self, *args, **kwargs)
        except BaseException as error:
            own.failed("step", error)
            raise
        finally:
            ring.end_activity(STEP, number.value)

    return step


def _get_output(original: Function) -> Function:
    number = _Number()
    own = activities

    def get_output(self: Any, *args: Any, **kwargs: Any) -> Any:  # noqa: ANN401
        ring = own.ring
        if ring is None:
            return original(self, *args, **kwargs)
        if number.ring is not ring:
            number.look_up("get_output")
        ring.begin_activity(OUTPUT, number.value, own.steps)
        try:
            return original(self, *args, **kwargs)
        except BaseException as error:
            own.failed("output", error)
            raise
        finally:
            ring.end_activity(OUTPUT, number.value)

    return get_output


class _Number:
    """The number of a name in a ring, looked up once."""

    __slots__ = ("ring", "value")

    def __init__(self) -> None:
        self.ring: Any = None
        self.value = 0

    def look_up(self, name: str) -> None:
        """Look it up in the ring that is open now."""
        self.ring, self.value = activities.ring, activities.name(name)
