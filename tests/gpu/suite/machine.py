"""Where the suite runs, and with which versions. Asked in a process of its own, with a bound.

``python -m tests.gpu.suite.machine SETTINGS`` prints it as JSON.
"""

from __future__ import annotations

import ctypes
import os
import platform
import re
import subprocess
import sys
from contextlib import suppress
from pathlib import Path

import msgspec

from tests.gpu.suite import settings
from tests.gpu.suite.settings import Settings

ASK_SECONDS = 90.0


class Machine(msgspec.Struct, frozen=True, omit_defaults=True):
    """A machine and its software; what is not there is empty.

    Attributes:
        no_device: Why there is no device to run on; empty if there is one.
        gpu: Its name.
        gpus: How many.
        capability: Of computing: ``9.0``.
        memory_gib: Of one device.
        driver: Version of the kernel's driver.
        cuda: Version of CUDA that torch was built with.
        torch: Its version.
        nccl: The version that torch calls.
        nccl_brought: The version of the NCCL that was brought, and its file's name.
        triton: Its version.
        cupy: Its version.
        vllm: The versions that were brought.
        python: Its version.
        system: Kernel and processor.
        cores: How many processors this process may use.
        graphguard: Its version.
        hostname: Of the machine.
    """

    no_device: str = ""
    gpu: str = ""
    gpus: int = 0
    capability: str = ""
    memory_gib: float = 0.0
    driver: str = ""
    cuda: str = ""
    torch: str = ""
    nccl: str = ""
    nccl_brought: str = ""
    triton: str = ""
    cupy: str = ""
    vllm: str = ""
    python: str = ""
    system: str = ""
    cores: int = 0
    graphguard: str = ""
    hostname: str = ""


def ask(settings_file: Path) -> Machine:
    """Ask in a process of its own: where a driver hangs, this does not."""
    command = [sys.executable, "-m", "tests.gpu.suite.machine", str(settings_file)]
    try:
        done = subprocess.run(command, capture_output=True, timeout=ASK_SECONDS, check=False)
        lines = done.stdout.strip().splitlines()
        if done.returncode == 0 and lines:
            return msgspec.json.decode(lines[-1], type=Machine)
        last = done.stderr.decode(errors="replace").strip().splitlines()[-1:] or ["nothing"]
        why = f"asking for it ended with {done.returncode}: {last[0]}"
    except subprocess.TimeoutExpired:
        why = f"asking for it took more than {ASK_SECONDS:.0f} s"
    except msgspec.DecodeError as error:
        why = f"asking for it gave no answer: {error}"
    return Machine(no_device=why, python=platform.python_version())


def look(given: Settings) -> Machine:
    """Look at this machine."""
    from graphguard.version import __version__
    from tests.gpu.suite import needs

    no_device = needs.device(given)
    known = {} if no_device else _device()
    return msgspec.convert(
        {
            "no_device": no_device,
            "torch": _version("torch"),
            "triton": _version("triton"),
            "cupy": _version("cupy"),
            "vllm": ", ".join(sorted(given.vllm)),
            "nccl_brought": _brought_nccl(given.nccl),
            "driver": _driver(),
            "python": platform.python_version(),
            "system": f"{platform.system()} {platform.release()}, {_processor()}",
            "cores": len(os.sched_getaffinity(0)),
            "graphguard": __version__,
            "hostname": platform.node(),
            **known,
        },
        Machine,
    )


def _device() -> dict[str, object]:
    import torch

    properties = torch.cuda.get_device_properties(0)
    return {
        "gpu": properties.name,
        "gpus": torch.cuda.device_count(),
        "capability": f"{properties.major}.{properties.minor}",
        "memory_gib": round(properties.total_memory / 2**30, 1),
        "cuda": torch.version.cuda or "",
        "nccl": ".".join(map(str, torch.cuda.nccl.version())),
    }


def _version(package: str) -> str:
    from importlib import metadata

    # cupy is installed under the name of a CUDA version.
    for name in (package, f"{package}-cuda13x", f"{package}-cuda12x"):
        with suppress(metadata.PackageNotFoundError):
            return metadata.version(name)
    return ""


def _brought_nccl(path: str) -> str:
    if not path:
        return ""
    number = ctypes.c_int(0)
    try:
        if ctypes.CDLL(path).ncclGetVersion(ctypes.byref(number)) != 0:
            return f"{Path(path).name} says nothing"
    except (OSError, AttributeError) as error:
        return f"cannot be loaded: {error}"
    major, rest = divmod(number.value, 10_000)
    return f"{major}.{rest // 100}.{rest % 100}"


def _driver() -> str:
    with suppress(OSError):
        text = Path("/proc/driver/nvidia/version").read_text()
        if found := re.search(r"\b(\d+\.\d+(?:\.\d+)?)\b", text):
            return found.group(1)
    return ""


def _processor() -> str:
    with suppress(OSError):
        for line in Path("/proc/cpuinfo").read_text().splitlines():
            if line.startswith("model name"):
                return line.partition(":")[2].strip()
    return platform.machine()


if __name__ == "__main__":
    print(msgspec.json.encode(look(settings.from_arguments())).decode())
