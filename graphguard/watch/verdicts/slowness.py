"""Whether a rank that others wait for is merely slow.

Slow is what is seen to end by itself: work that says so, a compiler at work, one sleep with an end,
a disk that is read. A single long call of compiled code, and a loop of the program's own, look like
this as little as they look like a hang: for them there is no evidence, and none is made up.
"""

from __future__ import annotations

import os
import re
from collections.abc import Sequence
from contextlib import suppress

import msgspec

from graphguard.watch.looking.ranks import RankState
from graphguard.watch.stack_traces.stack_model import Frame, ProcessStacks
from graphguard.watch.stack_traces.wait_frames import words
from graphguard.watch.verdicts.stall import Evidence
from graphguard.watch.verdicts.standing import TIMED_SLEEPS

READ_BYTES = 2**20
"""What a process reads between two looks, at least, if it is slow because it reads."""

COMPILER_NS = 50_000_000
"""Processor time that a compiler uses between two looks, at least, if it is at work."""

WORKING = 0.1
"""Share of the time between two looks that a thread computes, at least, if it is at work."""

_MAX_SYSCALL_TEXT = 512

# Where stacks pass through only while something is compiled, tuned or built. What compiled code
# passes through each time that it runs is not among them.
_COMPILING = (
    (r"torch/_dynamo/(?:convert_frame|symbolic_convert|output_graph|guards)\.py", "torch.compile"),
    (r"torch/_inductor/(?:compile_fx|codecache|async_compile|scheduler|graph|cpp_builder"
     r"|select_algorithm|compile_worker/)", "Inductor"),
    (r"(?:benchmark_all_configs|autotune_to_one_config|coordinate_descent_tuning|precompile) \("
     r".*torch/_inductor/", "the tuning of Inductor"),
    (r"torch/_functorch/_?aot_autograd|torch/_functorch/_aot_autograd/", "AOTAutograd"),
    (r"torch/utils/cpp_extension\.py", "the build of an extension of torch"),
    (r"triton/(?:compiler/|runtime/build\.py|backends/)", "Triton"),
    (r"(?:_bench|do_bench\w*|benchmark) \(.*triton/", "the tuning of Triton"),
    (r"flashinfer/jit/", "FlashInfer's compiler"),
    (r"(?:choose_one|_profile\w*|autotune\w*) \(.*flashinfer/", "the tuning of FlashInfer"),
    (r"deep_gemm/(?:jit|jit_kernels|warmup)", "DeepGEMM's compiler"),
    (r"cutlass/base_dsl/|cutlass_dsl|/cute/.*compil", "the compiler of CuTe"),
    (r"/tilelang/(?:jit|autotuner|engine)", "TileLang"),
    (r"/tvm/(?:build|driver|relax|tir|meta_schedule)|/tvm_ffi/cpp/", "TVM"),
    (r"cupy/cuda/compiler\.py|nvrtcCompileProgram|libnvrtc", "NVRTC"),
    (r"libnvJitLink|libnvidia-ptxjitcompiler|cuModuleLoad|cuLibraryLoad", "the driver's compiler"),
    (r"llvm::|libLLVM|libtriton", "LLVM"),
)  # fmt: skip
_COMPILING_PATTERNS = tuple((re.compile(pattern), what) for pattern, what in _COMPILING)

_COMPILERS = re.compile(
    r"^(?:nvcc|cicc|ptxas|fatbinary|nvlink|cudafe\+\+|hipcc|cc1(?:plus)?|lto1|cc|c\+\+|gcc|g\+\+"
    r"|(?:\S*-)?(?:gcc|g\+\+|clang(?:\+\+)?)(?:-[\d.]+)?|as|ld(?:\.\w+)?|collect2|ninja|make|cmake"
    r"|cargo|rustc|hsaco)$"
)

_STARTS = "vfork"
STARTS_PROCESS = frozenset({_STARTS, "kernel_clone", "_do_fork", "wait_for_vfork_done"})
"""What a thread waits in until the process that it starts has begun (``kernel/fork.c``)."""

_SLEEPING_CALLS: dict[str, dict[int, str]] = {
    "x86_64": {
        35: "clock_nanosleep",
        230: "clock_nanosleep",
        **dict.fromkeys((56, 58, 435), _STARTS),
    },
    "aarch64": {
        101: "clock_nanosleep",
        115: "clock_nanosleep",
        **dict.fromkeys((220, 435), _STARTS),
    },
}
"""System calls that only sleep (or start a process), by their numbers on each machine."""


class SlowSigns(msgspec.Struct, frozen=True):
    """What tells that a rank is slow.

    Attributes:
        certain: Each ends by itself.
        supporting: What makes long work likely, and is no sign by itself: that a graph runs for
            the first time, that the engine starts.
    """

    certain: tuple[Evidence, ...] = ()
    supporting: tuple[Evidence, ...] = ()


def slow_signs(
    before: RankState | None,
    after: RankState,
    stacks: ProcessStacks | None,
    thread: int,
    first_run: str = "",
) -> SlowSigns:
    """Return what tells that a rank is slow, and not stuck.

    Args:
        before: The rank as it was some hundred milliseconds earlier.
        after: As it was then.
        stacks: Its stacks, if they could be had.
        thread: The thread that should get on.
        first_run: What it does for the first time; empty if it has done so before.
    """
    certain = [*_extension(after), *_compiles(after, stacks, thread)]
    supporting: list[Evidence] = []
    if before is not None:
        certain += [
            *_children(before, after),
            *_sleeps(before, after, thread),
            *_reads(before, after),
        ]
        if first_run and _computes(before, after, thread):
            supporting.append(Evidence(f"{first_run}, and it computes", f"/proc/{after.pid}/task"))
    return SlowSigns(tuple(certain), tuple(supporting))


def with_named_sleeps(state: RankState, threads: Sequence[int]) -> RankState:
    """Name the sleeps of threads, where the kernel does not say what they wait in.

    Many kernels do not tell it to a user (``wchan`` is 0) and yet tell the system call.
    """
    named = {tid: call for tid in threads if (call := _sleeping_call(state.pid, tid))}
    if not named:
        return state
    threads_named = tuple(
        msgspec.structs.replace(each, waits_in=named[each.tid])
        if each.tid in named and not each.waits_in and each.state in ("sleeping", "disk")
        else each
        for each in state.process.threads
    )
    process = msgspec.structs.replace(state.process, threads=threads_named)
    return msgspec.structs.replace(state, process=process)


def with_own_reads(state: RankState) -> RankState:
    """Count what the threads of a process have read, and nothing that its children have.

    What the kernel tells of a process has in it what those children have read that have ended.
    """
    read = sum(_read_by(state.pid, thread.tid) for thread in state.process.threads)
    process = msgspec.structs.replace(state.process, read_bytes=read)
    return msgspec.structs.replace(state, process=process)


def _read_by(pid: int, tid: int) -> int:
    """Return what a thread has read, by system calls or from disks, whichever is more."""
    with suppress(OSError, ValueError), open(f"/proc/{pid}/task/{tid}/io", "rb") as file:
        told = dict(line.split(b":", 1) for line in file.read(_MAX_SYSCALL_TEXT).splitlines())
        return max(int(told.get(b"rchar", 0)), int(told.get(b"read_bytes", 0)))
    return 0


def _sleeping_call(pid: int, tid: int) -> str:
    text = ""
    with suppress(OSError), open(f"/proc/{pid}/task/{tid}/syscall", encoding="ascii") as file:
        text = file.read(_MAX_SYSCALL_TEXT)
    number, _, arguments = text.partition(" ")
    if not number.isdigit():
        return ""
    machine = os.uname().machine
    call = _SLEEPING_CALLS.get(machine, {}).get(int(number), "")
    # Python before 3.11 sleeps by waiting for none of no files.
    selects = {"x86_64": {"23", "270"}, "aarch64": {"72"}}.get(machine, set())
    if number in selects and arguments.split(" ")[:4] == ["0x0"] * 4:
        return "clock_nanosleep"
    return call


def _extension(after: RankState) -> list[Evidence]:
    pulse = after.pulse
    if pulse is None or pulse.extended_ns <= 0:
        return []
    left = pulse.extended_ns / 1e9
    what = f"it says that it is slow, for {left:.0f} s more: {pulse.extended_why or 'no reason'}"
    return [Evidence(what, f"pulse of rank {after.rank}")]


def _compiles(after: RankState, stacks: ProcessStacks | None, tid: int) -> list[Evidence]:
    if stacks is None:
        return []
    stack = next((each for each in stacks.threads if each.tid == tid), stacks.main)
    frame = _compiling_frame(stack.frames) if stack is not None else None
    if frame is None:
        return []
    what = f"it is in {frame[1]}: {words(frame[0])}"
    return [Evidence(what, f"stack of rank {after.rank}, by {stacks.engine}")]


def _compiling_frame(frames: Sequence[Frame]) -> tuple[Frame, str] | None:
    for frame in frames:
        text = f"{frame.function} ({frame.file})"
        for pattern, what in _COMPILING_PATTERNS:
            if pattern.search(text):
                return frame, what
    return None


def _children(before: RankState, after: RankState) -> list[Evidence]:
    then = {child.pid: child for child in before.process.children}
    found = []
    for child in after.process.children:
        if not _COMPILERS.match(child.name):
            continue
        earlier = then.get(child.pid)
        # One that has begun since is work that goes on, whatever it has used yet.
        used = child.cpu_ns - earlier.cpu_ns if earlier is not None else COMPILER_NS
        if used >= COMPILER_NS:
            what = f"its child {child.name} (pid {child.pid}) compiles"
            found.append(Evidence(what, f"/proc/{child.pid}/stat"))
    return found


def _sleeps(before: RankState, after: RankState, tid: int) -> list[Evidence]:
    """Return whether a thread is in one sleep with an end. A loop of short ones is not that."""
    then = next((each for each in before.process.threads if each.tid == tid), None)
    now = next((each for each in after.process.threads if each.tid == tid), None)
    if then is None or now is None or then.switches != now.switches:
        return []
    if then.waits_in not in TIMED_SLEEPS or now.waits_in not in TIMED_SLEEPS:
        return []
    return [Evidence("it sleeps for a time that was set", f"/proc/{after.pid}/task/{tid}/syscall")]


def _reads(before: RankState, after: RankState) -> list[Evidence]:
    read = after.process.read_bytes - before.process.read_bytes
    if read >= READ_BYTES:
        what = f"it has read {read / 2**20:.1f} MiB between two looks"
        return [Evidence(what, f"/proc/{after.pid}/io")]
    if _in_one_disk_wait(before, after):
        return [Evidence("it waits for a disk", f"/proc/{after.pid}/stat")]
    return []


def _in_one_disk_wait(before: RankState, after: RankState) -> bool:
    """Return whether the main thread is in one wait that cannot be interrupted.

    Those that start a process are in one, too, until it has begun. It is short, again and again.
    """
    then = next((each for each in before.process.threads if each.tid == before.pid), None)
    now = next((each for each in after.process.threads if each.tid == after.pid), None)
    return (
        then is not None
        and now is not None
        and then.state == now.state == "disk"
        and then.switches == now.switches
        and STARTS_PROCESS.isdisjoint((then.waits_in, now.waits_in))
    )


def _computes(before: RankState, after: RankState, tid: int) -> bool:
    then = next((each.cpu_ns for each in before.process.threads if each.tid == tid), 0)
    now = next((each for each in after.process.threads if each.tid == tid), None)
    between = after.looked_ns - before.looked_ns
    # On a machine with much to do, what computes all the time gets little of it.
    return (
        now is not None
        and now.state == "running"
        and between > 0
        and now.cpu_ns - then >= WORKING * between
    )
