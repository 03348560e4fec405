"""Processes that stand still inside of a replay, to be looked at by another one.

``python -m tests.gpu.breadcrumbs_program wait|spin RELEASE`` captures a graph that waits on a flag
of the host, and lets it go on when the file RELEASE is there.
``python -m tests.gpu.breadcrumbs_program rank FILE RANK`` is one of two ranks of NCCL that replay
graphs which differ, and never end: whoever starts them ends them.

Each prints a line of JSON when its replay is launched, with the time by CLOCK_MONOTONIC.
"""

from __future__ import annotations

import ctypes
import json
import sys
import time
from pathlib import Path

import torch

from graphguard import BatchDescriptor, graphs, record
from graphguard.breadcrumbs import marking
from graphguard.communication import Match, kernel_match

ELEMENTS = (1024, 2048, 4096)
PASSED = 2
SECONDS = 60.0

SPIN = b"""
.version 6.3
.target sm_70
.address_size 64
.visible .entry graphguard_spin(.param .u64 flag)
{
    .reg .b64 %address;
    .reg .b32 %value;
    .reg .pred %waits;
    ld.param.u64 %address, [flag];
    cvta.to.global.u64 %address, %address;
again:
    ld.relaxed.sys.global.u32 %value, [%address];
    setp.eq.u32 %waits, %value, 0;
    nanosleep.u32 1000;
    @%waits bra again;
    ret;
}
"""


class Flag:
    """A word of the host that a graph waits on until it is not 0."""

    def __init__(self) -> None:
        self._driver = ctypes.CDLL("libcuda.so.1")
        self._word = torch.zeros(1, dtype=torch.int32).pin_memory()
        self._pointer = ctypes.c_uint64()
        host = ctypes.c_void_p(self._word.data_ptr())
        self._call("cuMemHostGetDevicePointer_v2", ctypes.byref(self._pointer), host, 0)
        module = ctypes.c_void_p()
        self._spin = ctypes.c_void_p()
        self._call("cuModuleLoadData", ctypes.byref(module), SPIN)
        self._call("cuModuleGetFunction", ctypes.byref(self._spin), module, b"graphguard_spin")

    def wait(self) -> None:
        """Let the current stream wait, without a kernel."""
        self._call("cuStreamWaitValue32_v2", self._stream(), self._pointer, ctypes.c_uint32(1), 0)

    def spin(self) -> None:
        """Let a kernel of the current stream spin."""
        arguments = (ctypes.c_void_p * 1)(ctypes.addressof(self._pointer))
        self._call("cuLaunchKernel", self._spin, *[1] * 6, 0, self._stream(), arguments, None)

    def release(self) -> None:
        """Let it go on; a plain store."""
        self._word.fill_(1)

    def _stream(self) -> ctypes.c_void_p:
        return ctypes.c_void_p(torch.cuda.current_stream().cuda_stream)

    def _call(self, name: str, *arguments: object) -> None:
        result = getattr(self._driver, name)(*arguments)
        assert result == 0, f"{name} said {result}"


def mark_every_kernel() -> None:
    """Take every kernel for one that communicates, as far as marks are concerned."""
    any_kernel = kernel_match("ncclDevKernel_Generic")

    def match(_name: str) -> Match | None:
        return any_kernel

    vars(marking)["kernel_match"] = match


def tell(**what: object) -> None:
    """Print a line for whoever has started this process."""
    print(json.dumps({"at_ns": time.monotonic_ns(), **what}), flush=True)


def stand_still(way: str, release: Path) -> None:
    """Replay a graph of three kernels with a stop before the second or in it."""
    mark_every_kernel()
    flag = Flag()
    stop = flag.wait if way == "wait" else flag.spin
    x = torch.zeros(256, device="cuda")
    graph = torch.cuda.CUDAGraph()
    with record("target", BatchDescriptor.of(4, 2)) as recording:
        with graphs.capture(graph):
            x.add_(1)
            stop()
            x.mul_(2)
            x.add_(3)
        recording.captured(graph)
    try:
        graph.replay()
        tell(digest=recording.signature.shared_digest[:16])
        deadline = time.monotonic() + SECONDS
        while not release.exists() and time.monotonic() < deadline:
            time.sleep(0.005)
    finally:
        # A device that waits for ever would keep this process from ending.
        flag.release()
    torch.cuda.synchronize()
    tell(values=sorted(set(x.tolist())))


def differ(file: str, rank: int) -> None:
    """Capture all calls on rank 0 and all but the last on rank 1, and replay."""
    import torch.distributed as dist

    torch.cuda.set_device(rank % torch.cuda.device_count())
    dist.init_process_group("nccl", init_method=f"file://{file}", rank=rank, world_size=2)
    tensors = [torch.ones(elements, device="cuda") for elements in ELEMENTS]
    for tensor in tensors:
        dist.all_reduce(tensor)
    torch.cuda.synchronize()
    graph = torch.cuda.CUDAGraph()
    with record("target", BatchDescriptor.of(4, 2)) as recording:
        with graphs.capture(graph):
            for tensor in tensors[: len(tensors) if rank == 0 else PASSED]:
                dist.all_reduce(tensor)
        recording.captured(graph)
    graph.replay()
    tell(calls=len(recording.signature.collectives))
    # Rank 0 never gets through. Whoever started both ends them.
    time.sleep(SECONDS)


if __name__ == "__main__":
    if sys.argv[1] == "rank":
        differ(sys.argv[2], int(sys.argv[3]))
    else:
        stand_still(sys.argv[1], Path(sys.argv[2]))
