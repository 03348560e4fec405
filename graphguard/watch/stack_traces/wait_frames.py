"""By which frames of a stack a thread is seen to wait, and for what.

Innermost frames are looked at first. What neither waits nor does anything of the program's own
(a lock, a poll, the wrapper of a call) is passed over; the first other frame decides.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from enum import Enum

import msgspec

from graphguard.watch.stack_traces.stack_model import Frame


class Wait(str, Enum):
    """What a thread does, as its stack tells."""

    PEERS = "peers"
    """It waits for other ranks."""
    DEVICE = "device"
    """It waits for its device."""
    WORK = "work"
    """It waits to be given something to do."""
    HOST = "host"
    """It waits for none of these: it is in code of the program."""
    LIBRARY = "library"
    """It is in compiled code that is called by a library; what it does there is not told."""
    NOT_TOLD = "not told"
    """There is no stack."""

    def __str__(self) -> str:
        return self.value


class _Rule(msgspec.Struct, frozen=True):
    """Frames that say what a thread waits for, and how that is known."""

    wait: Wait
    pattern: re.Pattern[str]
    reason: str


def _rule(wait: Wait, pattern: str, reason: str) -> _Rule:
    return _Rule(wait, re.compile(pattern), reason)


# A frame is matched as "function (file)", native ones too.
RULES = (
    _rule(Wait.PEERS, r"gloo::|c10d::\w*Gloo|UnboundBuffer", "gloo waits for another rank"),
    _rule(Wait.PEERS, r"libgloo", "gloo waits for another rank"),
    _rule(Wait.PEERS, r"c10d::(?:TCP|File|Prefix|Hash)Store", "waits for a key of the store"),
    _rule(Wait.PEERS, r"c10d::|\(.*torch/distributed/", "a call of torch.distributed"),
    _rule(Wait.PEERS, r"\(.*multiprocessing/synchronize\.py\)", "waits for another process"),
    _rule(Wait.DEVICE, r"\bnccl\w*Comm\w*GetAsyncError|libnccl", "in a call of NCCL"),
    _rule(
        Wait.PEERS,
        r"^[^(]*(?:shm_(?:all|reduce|gather|send|recv|broadcast)|SHMManager)",
        "vLLM's collectives in shared memory",
    ),
    _rule(
        Wait.PEERS,
        r"\(.*vllm/distributed/(?!device_communicators/shm_broadcast)",
        "a communicator of vLLM",
    ),
    _rule(Wait.PEERS, r"^[^(]*(?:custom|quick|oneshot|twoshot)_all_?reduce", "an all-reduce"),
    _rule(
        Wait.PEERS,
        r"\bnvshmem|libmpi|\bMPI_[A-Z]|libuc[pt]|\buc[pt]_|libfabric|ibv_|libibverbs|deep_ep|nixl",
        "a library for communication",
    ),
    _rule(
        Wait.WORK,
        r"(?:dequeue|acquire_read|recv) \(.*shm_broadcast\.py\)",
        "vLLM's message queue: nothing to do",
    ),
    _rule(
        Wait.PEERS,
        r"(?:enqueue|acquire_write) \(.*shm_broadcast\.py\)",
        "vLLM's message queue is full",
    ),
    _rule(
        Wait.WORK,
        r"\(.*(?:multiprocessing/(?:queues|connection|managers)|/queue)\.py\)",
        "a queue: nothing to do",
    ),
    _rule(Wait.WORK, r"worker_busy_loop \(|run_busy_loop \(", "the loop of a worker of vLLM"),
    _rule(Wait.WORK, r"\(.*zmq/|zmq_poll|zmq::", "waits for a message of ZeroMQ"),
    _rule(
        Wait.DEVICE,
        r"\bcu(?:da)?(?:Stream|Event|Device|Ctx)(?:Synchronize|Query)",
        "waits for its device",
    ),
    _rule(
        Wait.DEVICE,
        r"\bcu(?:da)?(?:GraphLaunch|LaunchKernel|Memcpy|MemGetInfo|MemAlloc|MemFree"
        r"|Memset|Malloc|Free)",
        "a call that the driver holds while its queue is full",
    ),
    _rule(Wait.DEVICE, r"libcuda\.so|libcudart", "in the CUDA driver"),
    _rule(Wait.DEVICE, r"synchronize \(.*torch/(?:cuda|xpu|accelerator)/", "waits for its device"),
    _rule(
        Wait.DEVICE,
        r"(?:replay|wait|elapsed_time) \(.*torch/cuda/(?:graphs|streams)\.py\)",
        "launches a graph, or waits for an event",
    ),
    _rule(Wait.DEVICE, r"\(.*cupy/cuda/(?:stream|graph)", "waits for its device"),
)

# What a thread goes through on its way into a wait, or on its way into the code of the program.
_NATIVE_PASSED_OVER = re.compile(
    r"^_*(?:lll_|libc_|GI_)?\w*(?:futex|pthread|epoll|poll|select|sched_yield|nanosleep|usleep"
    r"|syscall|clone|start_thread|sem_wait|sem_timedwait|recv|send|read|write|accept)\w* \("
    r"|^std::"
    r"|^(?:_?Py\w+|_PyEval\S*|take_gil|\w*[vV]ectorcall\w*|cfunction_\w+|slot_tp_\w+) \("
    r"|^\w*(?:0x[0-9a-f]+) \(|^\[?(?:vdso|unknown)"
    r"|\((?:.*/)?(?:ld-linux|libpthread|libc[.-]|libpython|libstdc\+\+|libffi|python3?[.\d]*\))"
    r"|/lib-dynload/",
)
_PYTHON_PASSED_OVER = re.compile(
    r"\((?:.*/)?(?:threading|selectors|contextlib|functools|thread|runpy|socket|subprocess)\.py\)$"
    r"|\(.*/(?:asyncio|concurrent/futures|multiprocessing)/.*\)$"
    r"|\(<frozen .*\)$"
    r"|\(.*/graphguard/(?!demo/|watch/).*\)$"
)
_LIBRARY = re.compile(
    r"\(.*/(?:torch|numpy|triton|cupy|flashinfer|deep_gemm)/|at::|c10::|torch::"
    r"|\((?:.*/)?(?:libtorch|libc10|libgomp|libiomp|libomp|libmkl|libopenblas|libdnnl)"
)


class Seen(msgspec.Struct, frozen=True):
    """What a stack tells of its thread.

    Attributes:
        wait: What it waits for.
        where: The call that says so, or that it is in: ``spin() model.py:12``.
        reason: How a wait is known.
    """

    wait: Wait
    where: str
    reason: str = ""


def seen_in(frames: Sequence[Frame]) -> Seen:
    """Return what a stack, innermost frame first, tells of its thread."""
    if not frames:
        return Seen(Wait.NOT_TOLD, "")
    library = False
    for frame in frames:
        text = f"{frame.function} ({frame.file})"
        rule = next((each for each in RULES if each.pattern.search(text)), None)
        if rule is not None:
            return Seen(rule.wait, _place(frames, frame), rule.reason)
        if _passed_over(frame, text):
            continue
        if _LIBRARY.search(text):
            library = True
            continue
        if frame.native:
            # Compiled code that no rule knows: that of an extension of the program.
            return Seen(Wait.HOST, _place(frames, frame))
        return Seen(Wait.LIBRARY if library else Wait.HOST, words(frame))
    return Seen(Wait.LIBRARY if library else Wait.HOST, words(frames[0]))


def words(frame: Frame) -> str:
    """Return a frame in words: ``spin() model.py:12``."""
    file = frame.file.rpartition("/")[2]
    return f"{frame.function}() {file}:{frame.line}" if frame.line else f"{frame.function}() {file}"


def program_frame(frames: Sequence[Frame]) -> Frame | None:
    """Return the innermost frame of the program's own code, or None."""
    for frame in frames:
        text = f"{frame.function} ({frame.file})"
        if frame.native or _passed_over(frame, text) or _LIBRARY.search(text):
            continue
        if not any(rule.pattern.search(text) for rule in RULES):
            return frame
    return None


def _passed_over(frame: Frame, text: str) -> bool:
    pattern = _NATIVE_PASSED_OVER if frame.native else _PYTHON_PASSED_OVER
    return pattern.search(text) is not None


def _place(frames: Sequence[Frame], decisive: Frame) -> str:
    """Name a decisive frame, and from where the program came to it."""
    caller = program_frame(frames)
    inner = words(decisive)
    return inner if caller is None or caller is decisive else f"{inner}, called by {words(caller)}"
