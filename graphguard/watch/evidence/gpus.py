"""What the driver says of the GPUs, by NVML. Run as a program, which prints JSON.

NVML can block where a GPU is in trouble, and it is native code: so it is a process of its own with
a limit, and never one that holds a CUDA context.
"""

from __future__ import annotations

import os
import sys
import time
from collections.abc import Callable
from typing import Any

import msgspec

from graphguard.watch.stack_traces import bounded_command

MAX_GPUS = 64
MAX_LINKS = 18
_MAX_XIDS = 32
_DRIVER_FILES = ("/proc/driver/nvidia/version", "/dev/nvidiactl", "/dev/dxg")
"""Of the driver, of its device in a container, and of Windows' in a Linux on it."""

_KERNEL_LOG = "/dev/kmsg"
_KERNEL_LOG_SECONDS = 0.2


class NoGpus(Exception):
    """Why nothing is known of the GPUs."""


def driver_there() -> bool:
    """Return whether there is a driver to ask: by the files that it makes."""
    return any(map(os.path.exists, _DRIVER_FILES))


def ask(seconds: float) -> dict[str, Any]:
    """Return what NVML says of all GPUs of the machine.

    Raises:
        NoGpus: Why there is nothing.
    """
    outcome = bounded_command.run([sys.executable, "-m", __name__], seconds)
    if outcome.problem:
        lines = outcome.errors.decode("utf-8", "replace").strip().splitlines()
        raise NoGpus(f"NVML: {outcome.problem}{f': {lines[-1][:200]}' if lines else ''}")
    try:
        told = msgspec.json.decode(outcome.output, type=dict[str, Any])
    except msgspec.DecodeError as error:
        raise NoGpus(f"NVML: {error}") from error
    if problem := told.get("problem"):
        raise NoGpus(str(problem))
    return told


def look() -> dict[str, Any]:
    """Ask NVML in this process."""
    try:
        import pynvml
    except ImportError:
        return {"problem": "nvidia-ml-py is not installed (pip install graphguard[nvml])"}
    try:
        pynvml.nvmlInit()
    except pynvml.NVMLError as error:
        return {"problem": f"NVML cannot be used: {error}"}
    try:
        count = min(int(pynvml.nvmlDeviceGetCount()), MAX_GPUS)
        return {
            "format": 1,
            "driver": _text(pynvml.nvmlSystemGetDriverVersion()),
            "cuda_driver": _asked(pynvml.nvmlSystemGetCudaDriverVersion_v2),
            "gpus": [_Gpu(pynvml, index).look() for index in range(count)],
            "xids": _xids(),
        }
    except pynvml.NVMLError as error:
        return {"problem": f"NVML: {error}"}
    finally:
        pynvml.nvmlShutdown()


class _Gpu:
    """One GPU. What it does not tell is told as why not."""

    def __init__(self, nvml: Any, index: int) -> None:  # noqa: ANN401 - it has no types
        self._nvml = nvml
        self._index = index
        self._handle = nvml.nvmlDeviceGetHandleByIndex(index)

    def look(self) -> dict[str, Any]:
        nvml = self._nvml
        return {
            "index": self._index,
            "name": self._ask("nvmlDeviceGetName"),
            "uuid": self._ask("nvmlDeviceGetUUID"),
            "utilisation": self._fields("nvmlDeviceGetUtilizationRates", "gpu", "memory"),
            "memory": self._fields("nvmlDeviceGetMemoryInfo", "total", "used", "free"),
            "clocks_mhz": {
                "sm": self._ask("nvmlDeviceGetClockInfo", nvml.NVML_CLOCK_SM),
                "memory": self._ask("nvmlDeviceGetClockInfo", nvml.NVML_CLOCK_MEM),
            },
            "throttle_reasons": self._ask("nvmlDeviceGetCurrentClocksThrottleReasons"),
            "performance_state": self._ask("nvmlDeviceGetPerformanceState"),
            "temperature_c": self._ask("nvmlDeviceGetTemperature", nvml.NVML_TEMPERATURE_GPU),
            "power_mw": self._ask("nvmlDeviceGetPowerUsage"),
            "processes": self._processes(),
            "ecc_uncorrected": self._ask(
                "nvmlDeviceGetTotalEccErrors",
                nvml.NVML_MEMORY_ERROR_TYPE_UNCORRECTED,
                nvml.NVML_VOLATILE_ECC,
            ),
            "remapped_rows": self._ask("nvmlDeviceGetRemappedRows"),
            "pcie_replays": self._ask("nvmlDeviceGetPcieReplayCounter"),
            "nvlinks": self._links(),
        }

    def _ask(self, name: str, *arguments: object) -> Any:  # noqa: ANN401
        function = getattr(self._nvml, name, None)
        if function is None:
            return {"problem": f"this nvidia-ml-py has no {name}"}
        return _asked(lambda: function(self._handle, *arguments))

    def _fields(self, name: str, *fields: str) -> Any:  # noqa: ANN401
        answer = self._ask(name)
        if isinstance(answer, dict):
            return answer
        return {field: getattr(answer, field, None) for field in fields}

    def _processes(self) -> Any:  # noqa: ANN401
        found = self._ask("nvmlDeviceGetComputeRunningProcesses")
        if not isinstance(found, list):
            return found
        return [{"pid": each.pid, "memory": each.usedGpuMemory} for each in found[:256]]

    def _links(self) -> list[dict[str, Any]]:
        nvml = self._nvml
        counters = {
            "replay": nvml.NVML_NVLINK_ERROR_DL_REPLAY,
            "recovery": nvml.NVML_NVLINK_ERROR_DL_RECOVERY,
            "crc_flit": nvml.NVML_NVLINK_ERROR_DL_CRC_FLIT,
        }
        links = []
        for link in range(MAX_LINKS):
            state = self._ask("nvmlDeviceGetNvLinkState", link)
            if isinstance(state, dict):
                # A GPU has so many links, or none.
                break
            errors = {
                what: self._ask("nvmlDeviceGetNvLinkErrorCounter", link, counter)
                for what, counter in counters.items()
            }
            links.append({"link": link, "active": bool(state), "errors": errors})
        return links


def _asked(question: Callable[[], Any]) -> Any:  # noqa: ANN401
    """Return an answer, or why there is none: many GPUs do not have all that NVML knows."""
    try:
        return _text(question())
    except Exception as error:  # noqa: BLE001 - NVMLError, and what an older driver leaves out
        return {"problem": str(error)[:200]}


def _text(value: Any) -> Any:  # noqa: ANN401
    return value.decode("utf-8", "replace") if isinstance(value, bytes) else value


def _xids() -> Any:  # noqa: ANN401
    """Return the last errors of GPUs in the kernel's log. NVML tells only of new ones."""
    try:
        descriptor = os.open(_KERNEL_LOG, os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC)
    except OSError as error:
        return {"problem": f"the kernel's log cannot be read: {error.strerror}"}
    until = time.monotonic() + _KERNEL_LOG_SECONDS
    found: list[str] = []
    try:
        while time.monotonic() < until:
            try:
                record = os.read(descriptor, 8192).decode("utf-8", "replace")
            except BrokenPipeError:
                # Records were overwritten before they were read; the next ones are there.
                continue
            if "NVRM: Xid" in record:
                found.append(record.partition(";")[2].splitlines()[0][:500])
    except OSError:
        pass  # the end
    finally:
        os.close(descriptor)
    return found[-_MAX_XIDS:]


if __name__ == "__main__":
    sys.stdout.buffer.write(msgspec.json.encode(look(), enc_hook=str))
