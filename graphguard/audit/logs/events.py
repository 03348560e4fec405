"""What lines of a log can tell: one pattern for each kind of event.

Sources: vLLM ``distributed/device_communicators/shm_broadcast.py``, ``v1/engine/core.py``,
``v1/executor/multiproc_executor.py``, ``v1/metrics/loggers.py``; SGLang ``srt/utils/watchdog.py``,
``srt/managers/scheduler*.py``; PyTorch ``ProcessGroupNCCL.cpp``; TensorRT-LLM
``_torch/pyexecutor/py_executor.py``; Linux ``oom_kill.c``; NVIDIA's kernel module.
"""

from __future__ import annotations

import re
from typing import NamedTuple

from graphguard.audit.logs.lines import Line

_MAX_SEARCHED = 20_000
"""Characters of a message that are searched. What an engine says of an event stands at its start."""


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


def _of(pattern: str) -> re.Pattern[str]:
    return re.compile(pattern)


# In this order: a line is the first kind that it fits.
PATTERNS: dict[str, re.Pattern[str]] = {
    "idle": _of(r"generation throughput: 0\.0 tokens/s.*?Running: 0 reqs"),
    "no-progress": _of(r"(?:generation throughput: 0\.0 tokens/s.*?Running: (?P<running>[1-9]\d*) reqs|"
        r"Running: (?P<requests>[1-9]\d*) reqs.*?generation throughput: 0\.0 tok)"),
    "progress": _of(r"(?:generation throughput: |gen throughput \(token/s\): )(?P<rate>\d[\d.]*)"),
    "waiting": _of(r"No available (?:shared memory broadcast )?block found in (?P<seconds>\d+) second"),
    "not-the-queue": _of(r"no `?SystemError`?, (?:no )?`?memory_fence`?"),
    "pycfunction": _of(r"SystemError: attempting to create PyCFunction with class but no METH_METHOD"),
    "memory-fence": _of(r"\bFile \"[^\"]*shm_broadcast\.py\", line \d+, in memory_fence\b"),
    "rpc-timeout": _of(r"TimeoutError: RPC call to (?P<method>\w+) timed out"),
    "worker-died": _of(
        r"(?:Worker proc|RayWorkerProc|Engine core proc) (?P<who>\S+(?: and \S+)*?) ?died unexpectedly"
        r"(?: \(exit code: (?P<code>-?\d+)\))?"
        r"|The actor died unexpectedly|Worker exit type: SYSTEM_ERROR"
        r"|Rank (?P<rank>\d+) scheduler (?:is dead|died)"
        r"|Scheduler or DataParallelController (?P<scheduler>\d+) terminated with (?P<status>-?\d+)"),
    "oom-killed": _of(r"Out of memory: Killed process (?P<pid>\d+)|\bOOMKilled\b|oom_reaper: reaped"),
    "killed": _of(r"^Killed\s*$"),
    "crashed": _of(r"Fatal Python error: (?P<what>[^\n]+)|!!!!!!! Segfault encountered|"
        r"Segmentation fault \(core dumped\)|terminate called after throwing"),
    "xid": _of(r"NVRM: Xid \([^)]*\): (?P<code>\d+)"),
    "out-of-memory": _of(r"(?:torch\.)?(?:cuda\.)?OutOfMemoryError: |CUDA out of memory"),
    "cuda-error": _of(r"CUDA error: (?P<what>[^\n]{1,120})|CUDA driver error: (?P<driver>[^\n]{1,120})"),
    "nccl-timeout": _of(
        r"Watchdog caught collective operation timeout: WorkNCCL\((?P<work>[^()]*(?:\([^()]*\)[^()]*)*)\)"),
    "nccl-stuck": _of(r"ProcessGroupNCCL's watchdog got stuck for (?P<seconds>\d+) seconds"),
    "nccl-fatal": _of(r"watchdog thread terminated with exception|Heartbeat monitor timed out|"
        r"taking the entire process down"),
    "nccl-error": _of(r"ncclUnhandledCudaError|ncclSystemError|ncclRemoteError|ncclInternalError|"
        r"NCCL WARN (?P<what>[^\n]{1,200})|NCCL error:? (?P<name>[^\n]{1,120})"),
    "sglang-watchdog": _of(
        r"[Ww]atchdog timeout \(self\.watchdog_timeout=(?P<seconds>\d+)(?:, self\.soft=(?P<soft>\w+))?"),
    "sglang-batch": _of(r"\bcur_batch\w*\.batch_size\(\)=(?P<num_reqs>\d+)"),
    "quit": _of(r"SIGQUIT received|Received sigquit from a child"),
    "trt-hang": _of(r"Hang detected on rank (?P<rank>\d+) in PyExecutor"),
    "worker-exception": _of(
        r"WorkerProc hit an exception|Scheduler hit an exception|Error in event loop|"
        r"Worker failed with error '(?P<what>[^\n]{0,200})|WorkerProc failed(?: to start)?\."),
    "engine-fatal": _of(r"EngineCore (?:encountered a fatal error|hit an exception|failed to start)|"
        r"Engine core initialization failed"),
    "engine-dead": _of(r"\bEngineDeadError(?:: |, )"),
    "ended": _of(r"\[shutdown\] EngineCore: trigger received|Shutting down|SIGTERM received|"
        r"Received signal \d+"),
    "exception": _of(
        r"^\s*(?P<name>(?:[A-Za-z_][\w]*\.)*[A-Z]\w*(?:Error|Exception|Interrupt)): (?P<what>[^\n]*)"),
    "capturing": _of(r"Capturing (?:CUDA graph|batches|\w+ CUDA graphs|eagle|multi-module|dflash)|"
        r"Capture cuda graph begin"),
    "loading": _of(r"Loading safetensors|Starting to load model|Loading weights took|Compiling a graph|"
        r"[Aa]utotun|torch\.compile takes|Dynamo bytecode transform"),
    "ready": _of(r"init engine \(profile|Application startup complete|The server is fired up"),
    "start": _of(r"Initializing an? (?:V1 )?LLM engine \(v?(?P<version>[^)\s]+)\)"),
    "stack": _of(r"^\s*Thread \S+ \((?P<state>active(?:\+gil)?|idle)\): \"MainThread\""),
}

SHM_FRAME = re.compile(r"shm_broadcast\.py\", line \d+, in (?P<function>\w+)")

# A regular expression with these would be slower: most lines hold none of them.
_HINTS = (
    "throughput", "block found", "METH_METHOD", "memory_fence", "RPC call", "died", "SYSTEM_ERROR",
    "scheduler is dead", "terminated with", "Killed", "OOMKilled", "oom_reaper", "Fatal Python",
    "Seg", "terminate called", "Xid", "emory", "CUDA", "NCCL", "nccl", "atchdog", "Heartbeat",
    "taking the entire", "batch_size()", "SIGQUIT", "sigquit", "Hang detected", "hit an exception",
    "event loop", "Worker", "EngineCore", "Engine core", "EngineDead", "shutdown", "Shutting",
    "SIGTERM", "Received signal", "Error: ", "Exception: ", "Interrupt: ", "Captur", "Loading",
    "load model", "Compiling", "utotun", "torch.compile", "Dynamo", "init engine", "startup complete",
    "fired up", "Initializing a", "MainThread",
)  # fmt: skip
_SINGLE = re.compile("|".join(map(re.escape, _HINTS)))


def event_of(line: Line) -> Event | None:
    """Return what a line tells of, or None."""
    text = line.message[:_MAX_SEARCHED]
    if not _SINGLE.search(text):
        return None
    for kind, pattern in PATTERNS.items():
        if match := pattern.search(text):
            return Event(kind, line, {k: v for k, v in match.groupdict().items() if v})
    return None
