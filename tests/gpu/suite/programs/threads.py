"""Two ranks of NCCL as two threads of one process, which capture and replay at the same time.

``python -m tests.gpu.suite.programs.threads FOLDER RANK RANKS DEVICE``. The interposer records what
each thread calls. NCCL warns that launching graphs of several ranks from one process may block.
"""

from __future__ import annotations

import ctypes
import sys
import threading
from pathlib import Path
from typing import Any

import torch

from graphguard import BatchDescriptor, Session, record
from graphguard.recorders import nccl_interposer
from tests.gpu.suite.ranks import Reporter

RANKS = 2
ELEMENTS = 4096
FLOAT32, SUM = 7, 0


class UniqueId(ctypes.Structure):
    """``ncclUniqueId``, which is passed by value."""

    _fields_ = [("internal", ctypes.c_char * 128)]


class ThreadRank(threading.Thread):
    """One rank."""

    def __init__(self, nccl: Any, rank: int, unique: UniqueId, meeting: threading.Barrier) -> None:
        super().__init__(name=f"rank {rank}", daemon=True)
        self._nccl, self._rank, self._unique, self._meeting = nccl, rank, unique, meeting
        self.calls: list[str] = []
        self.values: list[float] = []
        self.error = ""

    def run(self) -> None:
        try:
            self._serve()
        except (RuntimeError, threading.BrokenBarrierError) as error:
            self.error = f"{type(error).__name__}: {error}"
            self._meeting.abort()

    def _serve(self) -> None:
        torch.cuda.set_device(0)
        communicator = ctypes.c_void_p()
        self._check(
            self._nccl.ncclCommInitRank(
                ctypes.byref(communicator), RANKS, self._unique, ctypes.c_int(self._rank)
            )
        )
        stream = torch.cuda.Stream()
        x = torch.full((ELEMENTS,), float(self._rank + 1), device="cuda")
        out = torch.empty_like(x)

        def call() -> None:
            self._check(
                self._nccl.ncclAllReduce(
                    ctypes.c_void_p(x.data_ptr()),
                    ctypes.c_void_p(out.data_ptr()),
                    ctypes.c_size_t(ELEMENTS),
                    FLOAT32,
                    SUM,
                    communicator,
                    ctypes.c_void_p(torch.cuda.current_stream().cuda_stream),
                )
            )

        torch.cuda.synchronize()
        with torch.cuda.stream(stream):
            call()
        stream.synchronize()
        self._meeting.wait()
        graph = torch.cuda.CUDAGraph()
        with record("target", BatchDescriptor.of(4, 1), session=Session()) as recording:
            with torch.cuda.graph(graph, stream=stream, capture_error_mode="thread_local"):
                call()
                call()
            recording.captured(graph)
        self.calls = [str(made) for made in recording.signature.collectives]
        self._meeting.wait()
        with torch.cuda.stream(stream):
            out.zero_()
            graph.replay()
        stream.synchronize()
        self.values = out.unique().tolist()

    def _check(self, result: int) -> None:
        if result:
            raise RuntimeError(f"rank {self._rank}: NCCL returned {result}")


def main() -> None:
    """Run both ranks and report what they saw."""
    report = Reporter(Path(sys.argv[1]) / f"events.{sys.argv[2]}")
    torch.cuda.init()
    nccl = nccl_interposer.loaded() or ctypes.CDLL("libnccl.so.2")
    unique = UniqueId()
    if nccl.ncclGetUniqueId(ctypes.byref(unique)):
        raise RuntimeError("NCCL gave no unique id")
    report("interposed", nccl_interposer.loaded() is not None)
    meeting = threading.Barrier(RANKS, timeout=30)
    threads = [ThreadRank(nccl, rank, unique, meeting) for rank in range(RANKS)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    report("calls", [thread.calls for thread in threads])
    report("values", [thread.values for thread in threads])
    report("errors", [thread.error for thread in threads if thread.error])
    report("done")


if __name__ == "__main__":
    main()
