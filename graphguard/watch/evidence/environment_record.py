"""In what the processes ran: variables, limits, versions, kernel. Without secrets."""

from __future__ import annotations

import os
import platform
import re
import sys
from collections.abc import Iterable, Mapping
from contextlib import suppress
from importlib import metadata
from typing import Any

from graphguard.version import __version__
from graphguard.watch.evidence.redaction import Redactor

MAX_ENVIRONMENT = 2**20
MAX_VALUE = 4096
_MAX_TEXT = 65_536
_MAX_MAPS = 8 * 2**20

_RELEVANT = re.compile(
    r"(?:GRAPHGUARD|NCCL|RCCL|VLLM|TORCH|TORCHINDUCTOR|PYTORCH|CUDA|NVIDIA|NV|OMP|MKL|GLOO|UCX|FI|"
    r"RAY|TRITON|FLASHINFER|SGLANG|SGL|TRTLLM|TLLM|HSA|HIP|ROCR|MALLOC|SLURM|OMPI|TP|C10D|KMP|"
    r"GLIBC|PYTHON|HF_HUB|TOKENIZERS|CUBLAS|CUDNN|DEEPEP|NVSHMEM)_.*|"
    r"PYTHON[A-Z]+|RANK|WORLD_SIZE|LOCAL_RANK|LOCAL_WORLD_SIZE|GROUP_RANK|MASTER_ADDR|MASTER_PORT|"
    r"LD_PRELOAD|LD_LIBRARY_PATH|PATH|VIRTUAL_ENV|CONDA_PREFIX|TMPDIR|XDG_RUNTIME_DIR|HOSTNAME"
)
_PACKAGES = (
    "graphguard",
    "torch",
    "vllm",
    "sglang",
    "tensorrt_llm",
    "flashinfer-python",
    "cupy-cuda13x",
    "cupy-cuda12x",
    "nvidia-nccl-cu12",
    "nvidia-nccl-cu13",
    "nvidia-cuda-runtime-cu12",
    "nvidia-cuda-runtime",
    "triton",
    "ray",
    "transformers",
    "numpy",
    "msgspec",
    "py-spy",
    "pystack",
    "nvidia-ml-py",
)
_LIBRARIES = re.compile(
    r"/lib(?:nccl|cuda|cudart|torch|torch_cuda|c10|nvshmem|rccl|mpi)[-.\w]*\.so"
)
_MEMORY = ("MemTotal", "MemAvailable", "SwapTotal", "SwapFree", "Shmem", "Dirty", "Writeback")
_CGROUP_FILES = (
    "cpu.max",
    "cpu.stat",
    "cpu.pressure",
    "cpuset.cpus.effective",
    "memory.max",
    "memory.high",
    "memory.current",
    "memory.events",
    "memory.pressure",
    "pids.max",
    "pids.current",
    "cpu/cpu.cfs_quota_us",
    "cpu/cpu.cfs_period_us",
    "cpu/cpu.stat",
    "memory/memory.limit_in_bytes",
    "memory/memory.usage_in_bytes",
)


def read_environment(pid: int) -> dict[str, str]:
    """Return the environment that a process was started with; empty if it cannot be read.

    What it has set itself since is not in it.
    """
    content = _bytes(f"/proc/{pid}/environ", MAX_ENVIRONMENT)
    pairs = (entry.partition(b"=") for entry in content.split(b"\0") if b"=" in entry)
    return {
        name.decode("utf-8", "replace"): value.decode("utf-8", "replace")
        for name, _, value in pairs
    }


def record(
    pids: Iterable[int], environments: Mapping[int, Mapping[str, str]], redactor: Redactor
) -> dict[str, Any]:
    """Return what is to be known of the machine and of processes on it.

    Args:
        pids: The processes.
        environments: Their environments, by process.
        redactor: Takes out what is secret.
    """
    return {
        "format": 1,
        "machine": _machine(),
        "versions": _versions(),
        "driver": _text("/proc/driver/nvidia/version").strip(),
        "shared_memory": _shared_memory(),
        "processes": {str(pid): _process(pid, environments.get(pid, {}), redactor) for pid in pids},
    }


def _process(pid: int, environment: Mapping[str, str], redactor: Redactor) -> dict[str, Any]:
    relevant = {
        name: redactor.variable(name, value)[:MAX_VALUE]
        for name, value in sorted(environment.items())
        if _RELEVANT.fullmatch(name)
    }
    return {
        "variables": relevant,
        "variables_left_out": len(environment) - len(relevant),
        "limits": _limits(pid),
        "cgroup": _cgroup(pid),
        "libraries": [redactor.text(path) for path in _libraries(pid)],
        "executable": redactor.text(_link(f"/proc/{pid}/exe")),
    }


def _machine() -> dict[str, Any]:
    system = os.uname()
    memory = dict(line.split(":", 1) for line in _text("/proc/meminfo").splitlines() if ":" in line)
    return {
        "host": system.nodename,
        "kernel": f"{system.sysname} {system.release} {system.version} {system.machine}",
        "processors": os.cpu_count(),
        "usable_processors": len(os.sched_getaffinity(0)),
        "load": _text("/proc/loadavg").split()[:3],
        "memory": {name: memory[name].strip() for name in _MEMORY if name in memory},
        "pressure": {
            what: _text(f"/proc/pressure/{what}").splitlines() for what in ("cpu", "io", "memory")
        },
        "up_seconds": (_text("/proc/uptime").split() or [""])[0],
        "ptrace_scope": _text("/proc/sys/kernel/yama/ptrace_scope").strip(),
    }


def _versions() -> dict[str, str]:
    """Return the versions of the packages that the examiner would import, as they stand on disk."""
    found = {"graphguard": __version__, "python": platform.python_version()}
    found["python_executable"] = sys.executable
    for package in _PACKAGES:
        with suppress(metadata.PackageNotFoundError, OSError, ValueError):
            found.setdefault(package, metadata.version(package))
    return found


def _shared_memory() -> dict[str, int] | str:
    try:
        status = os.statvfs("/dev/shm")  # noqa: S108 - it is looked at
    except OSError as error:
        return f"it cannot be looked at: {error.strerror}"
    return {
        "bytes": status.f_frsize * status.f_blocks,
        "free_bytes": status.f_frsize * status.f_bavail,
    }


def _limits(pid: int) -> dict[str, str]:
    lines = _text(f"/proc/{pid}/limits").splitlines()[1:]
    return {line[:26].strip(): " ".join(line[26:].split()) for line in lines}


def _cgroup(pid: int) -> dict[str, str]:
    """Return the limits of a process's control group, as far as they are seen from here."""
    lines = _text(f"/proc/{pid}/cgroup").splitlines()
    path = next((line[3:] for line in lines if line.startswith("0::")), "/")
    found = {"path": path}
    for name in _CGROUP_FILES:
        # In a container its own group is mounted as the root, whatever its path says.
        for base in (f"/sys/fs/cgroup{path.rstrip('/')}", "/sys/fs/cgroup"):
            if ".." not in base and (value := _text(f"{base}/{name}").strip()):
                found[name] = value[:1000]
                break
    return found


def _libraries(pid: int) -> list[str]:
    maps = _bytes(f"/proc/{pid}/maps", _MAX_MAPS).decode("utf-8", "replace")
    paths = {
        line.split(None, 5)[5] for line in maps.splitlines() if line.count(" ") > 4 and "/" in line
    }
    return sorted(path for path in paths if _LIBRARIES.search(path))[:100]


def _link(path: str) -> str:
    try:
        return os.readlink(path)
    except OSError:
        return ""


def _text(path: str) -> str:
    return _bytes(path, _MAX_TEXT).decode("utf-8", "replace")


def _bytes(path: str, max_bytes: int) -> bytes:
    try:
        with open(path, "rb", buffering=0) as file:
            blocks = []
            left = max_bytes
            while left and (block := file.read(left)):
                blocks.append(block)
                left -= len(block)
            return b"".join(blocks)
    except OSError:
        return b""
