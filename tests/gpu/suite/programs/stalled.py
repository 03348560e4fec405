"""A replay that waits for a flag of the host, which no rank and no collective is to blame for.

``python -m tests.gpu.suite.programs.stalled FOLDER RANK RANKS DEVICE SECONDS``: the flag is set
after so many seconds, and the replay ends.
"""

from __future__ import annotations

import ctypes
import sys
import threading
import time
from pathlib import Path

import torch

from graphguard import BatchDescriptor, Captured, Session, graphs, guard
from tests.gpu.suite.ranks import Reporter

BATCH = BatchDescriptor.of(4, 2)
_WAIT_UNTIL_AT_LEAST = 0


class Flag:
    """A word of the host that a captured node waits for."""

    def __init__(self) -> None:
        self._word = torch.zeros(1, dtype=torch.int32).pin_memory()
        self._driver = ctypes.CDLL("libcuda.so.1")
        self._address = ctypes.c_uint64()
        host = ctypes.c_void_p(self._word.data_ptr())
        self._call("cuMemHostGetDevicePointer_v2", ctypes.byref(self._address), host, 0)

    def wait(self) -> None:
        """Let the current stream wait until the word is 1."""
        stream = ctypes.c_void_p(torch.cuda.current_stream().cuda_stream)
        one = ctypes.c_uint32(1)
        self._call("cuStreamWaitValue32_v2", stream, self._address, one, _WAIT_UNTIL_AT_LEAST)

    def set(self, value: int) -> None:
        """Set the word, from the host."""
        self._word.fill_(value)

    def _call(self, name: str, *arguments: object) -> None:
        if result := getattr(self._driver, name)(*arguments):
            raise RuntimeError(f"{name} returned {result}")


def main() -> None:
    """Capture with the flag set, then replay with it cleared."""
    folder, rank, seconds = Path(sys.argv[1]), int(sys.argv[2]), float(sys.argv[5])
    report = Reporter(folder / f"events.{rank}")
    report.logged()
    flag, x = Flag(), torch.zeros(1024, device="cuda")

    def forward(_batch: object) -> torch.Tensor:
        x.add_(1)
        flag.wait()
        return x.mul_(2)

    def capture(batch: BatchDescriptor) -> Captured:
        graph = graphs.new()
        with graphs.capture(graph):
            forward(batch)
        return Captured(graph, inputs={"x": x}, outputs=x)

    flag.set(1)
    step = guard("target", eager=forward, session=Session(), mode="observe")(capture)
    step.warm_up([BATCH])
    step(BATCH)
    torch.cuda.synchronize()
    report("armed")
    flag.set(0)
    # Whatever is found of it, the device must not wait for ever.
    released = threading.Timer(seconds, flag.set, [1])
    released.start()
    report("launch")
    step(BATCH)
    report("launched")
    torch.cuda.synchronize()
    report("end")
    time.sleep(1)
    report("done")


if __name__ == "__main__":
    main()
