"""What lines of a log can tell: one pattern for each kind of event.

Sources: vLLM ``distributed/device_communicators/shm_broadcast.py``, ``v1/engine/core.py``,
``v1/executor/multiproc_executor.py``, ``v1/metrics/loggers.py``; SGLang ``srt/utils/watchdog.py``,
``srt/managers/scheduler*.py``; PyTorch ``ProcessGroupNCCL.cpp``; TensorRT-LLM
``_torch/pyexecutor/py_executor.py``; Linux ``oom_kill.c``; NVIDIA's kernel module.
"""

from __future__ import annotations

import re
from functools import cache
from typing import NamedTuple

from graphguard.audit.logs.lines import Line

_MAX_SEARCHED = 20_000
"""Characters of a message that are searched. What it says of an event stands at its start."""


class Event(NamedTuple):
    """Something that a line tells of.

    Attributes:
        kind: A key of :data:`PATTERNS`.
        line: Its line.
        values: What the pattern names in it.
    """

    kind: str
    line: Line
    values: dict[str, str]


def _of(pattern: str, *hints: str) -> tuple[tuple[str, ...], re.Pattern[str]]:
    """Return a pattern, and strings of which one is in every line that fits it.

    No two of them overlap in a line, so that one search finds those that are there.
    """
    return hints, re.compile(pattern)


# In this order: a line is the first kind that it fits.
PATTERNS: dict[str, tuple[tuple[str, ...], re.Pattern[str]]] = {
    "idle": _of(r"generation throughput: 0\.0 tokens/s.*?Running: 0 reqs", "throughput"),
    "no-progress": _of(
        r"(?:generation throughput: 0\.0 tokens/s.*?Running: (?P<running>[1-9]\d*) reqs|"
        r"Running: (?P<requests>[1-9]\d*) reqs.*?generation throughput: 0\.0 tok)",
        "throughput",
    ),
    "progress": _of(
        r"(?:generation throughput: |gen throughput \(token/s\): )(?P<rate>\d[\d.]*)", "throughput"
    ),
    "waiting": _of(
        r"No available (?:shared memory broadcast )?block found in (?P<seconds>\d+) second",
        "block found",
    ),
    "not-the-queue": _of(r"no `?SystemError`?, (?:no )?`?memory_fence`?", "Error"),
    "pycfunction": _of(
        r"SystemError: attempting to create PyCFunction with class but no METH_METHOD", "Error"
    ),
    "memory-fence": _of(
        r"\bFile \"[^\"]*shm_broadcast\.py\", line \d+, in memory_fence\b", "memory_fence"
    ),
    "rpc-timeout": _of(r"TimeoutError: RPC call to (?P<method>\w+) timed out", "Error"),
    "worker-died": _of(
        r"(?:Worker proc|RayWorkerProc|Engine core proc) (?P<who>\S+(?: and \S+)*?) ?"
        r"died unexpectedly"
        r"(?: \(exit code: (?P<code>-?\d+)\))?"
        r"|The actor died unexpectedly|Worker exit type: SYSTEM_ERROR"
        r"|Rank (?P<rank>\d+) scheduler (?:is dead|died)"
        r"|Scheduler or DataParallelController (?P<scheduler>\d+) terminated with "
        r"(?P<status>-?\d+)",
        "died",
        "SYSTEM_ERROR",
        "is dead",
        "terminated with",
    ),
    "oom-killed": _of(
        r"Out of memory: Killed process (?P<pid>\d+)|\bOOMKilled\b|oom_reaper: reaped",
        "Killed",
        "oom_reaper",
    ),
    "killed": _of(r"^Killed\s*$", "Killed"),
    "crashed": _of(
        r"Fatal Python error: (?P<what>[^\n]+)|!!!!!!! Segfault encountered|"
        r"Segmentation fault \(core dumped\)|terminate called after throwing",
        "Fatal Python",
        "Segfault",
        "Segmentation",
        "terminate called",
    ),
    "xid": _of(r"NVRM: Xid \([^)]*\): (?P<code>\d+)", "Xid"),
    "out-of-memory": _of(
        r"(?:torch\.)?(?:cuda\.)?OutOfMemoryError: |CUDA out of memory", "Error", "out of memory"
    ),
    "cuda-error": _of(
        r"CUDA error: (?P<what>[^\n]{1,120})|CUDA driver error: (?P<driver>[^\n]{1,120})",
        "CUDA error",
        "CUDA driver",
    ),
    "nccl-timeout": _of(
        r"Watchdog caught collective operation timeout: "
        r"WorkNCCL\((?P<work>[^()]*(?:\([^()]*\)[^()]*)*)\)",
        "atchdog",
    ),
    "nccl-stuck": _of(
        r"ProcessGroupNCCL's watchdog got stuck for (?P<seconds>\d+) seconds", "atchdog"
    ),
    "nccl-fatal": _of(
        r"watchdog thread terminated with exception|Heartbeat monitor timed out|"
        r"taking the entire process down",
        "atchdog",
        "Heartbeat",
        "taking the entire",
    ),
    "nccl-error": _of(
        r"ncclUnhandledCudaError|ncclSystemError|ncclRemoteError|ncclInternalError|"
        r"NCCL WARN (?P<what>[^\n]{1,200})|NCCL error:? (?P<name>[^\n]{1,120})",
        "NCCL",
        "nccl",
    ),
    "sglang-watchdog": _of(
        r"[Ww]atchdog timeout \(self\.watchdog_timeout=(?P<seconds>\d+)"
        r"(?:, self\.soft=(?P<soft>\w+))?",
        "atchdog",
    ),
    "sglang-batch": _of(r"\bcur_batch\w*\.batch_size\(\)=(?P<num_reqs>\d+)", "batch_size()="),
    "quit": _of(r"SIGQUIT received|Received sigquit from a child", "SIGQUIT", "sigquit"),
    "trt-hang": _of(r"Hang detected on rank (?P<rank>\d+) in PyExecutor", "Hang detected"),
    "worker-exception": _of(
        r"WorkerProc hit an exception|Scheduler hit an exception|Error in event loop|"
        r"Worker failed with error '(?P<what>[^\n]{0,200})|WorkerProc failed(?: to start)?\.",
        "hit an exception",
        "event loop",
        "failed",
    ),
    "engine-fatal": _of(
        r"EngineCore (?:encountered a fatal error|hit an exception|failed to start)|"
        r"Engine core initialization failed",
        "EngineCore",
        "Engine core",
    ),
    "engine-dead": _of(r"\bEngineDeadError(?:: |, )", "Error"),
    "ended": _of(
        r"\[shutdown\] EngineCore: trigger received|Shutting down|SIGTERM received|"
        r"Received signal \d+",
        "shutdown",
        "Shutting",
        "SIGTERM",
        "Received signal",
    ),
    "exception": _of(
        r"^\s*(?P<name>(?:[A-Za-z_][\w]*\.)*[A-Z]\w*(?:Error|Exception|Interrupt)): "
        r"(?P<what>[^\n]*)",
        "Error",
        "Exception",
        "Interrupt",
    ),
    "capturing": _of(
        r"Capturing (?:CUDA graph|batches|\w+ CUDA graphs|eagle|multi-module|dflash)|"
        r"Capture cuda graph begin",
        "Captur",
    ),
    "loading": _of(
        r"Loading safetensors|Starting to load model|Loading weights took|Compiling a graph|"
        r"[Aa]utotun|torch\.compile takes|Dynamo bytecode transform",
        "Loading",
        "load model",
        "Compiling",
        "utotun",
        "torch.compile",
        "Dynamo",
    ),
    "ready": _of(
        r"init engine \(profile|Application startup complete|The server is fired up",
        "init engine",
        "startup complete",
        "fired up",
    ),
    "start": _of(r"Initializing an? (?:V1 )?LLM engine \(v?(?P<version>[^)\s]+)\)", "Initializing"),
    "stack": _of(
        r"^\s*Thread \S+ \((?P<state>active(?:\+gil)?|idle)\): \"MainThread\"", "MainThread"
    ),
}

SHM_FRAME = re.compile(r"shm_broadcast\.py\", line \d+, in (?P<function>\w+)")


_HINTS = re.compile(
    "|".join(sorted({re.escape(h) for hints, _ in PATTERNS.values() for h in hints}))
)


@cache
def _kinds(hints: frozenset[str]) -> tuple[str, ...]:
    return tuple(kind for kind, (of_kind, _) in PATTERNS.items() if not hints.isdisjoint(of_kind))


def event_of(line: Line) -> Event | None:
    """Return what a line tells of, or None."""
    text = line.message[:_MAX_SEARCHED]
    hints = frozenset(_HINTS.findall(text))
    for kind in _kinds(hints) if hints else ():
        if match := PATTERNS[kind][1].search(text):
            return Event(kind, line, {k: v for k, v in match.groupdict().items() if v})
    return None
