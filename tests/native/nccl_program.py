"""Programs that call NCCL: ``python -m tests.native.nccl_program NAME ARGUMENTS``.

Each prints what it saw as one line of JSON. They know nothing of graphguard's Python.
"""

from __future__ import annotations

import ctypes
import json
import os
import sys
import threading
from collections.abc import Callable
from typing import Any

from tests.native.nccl_by_ctypes import (
    AVG,
    BFLOAT16,
    CAPTURED_STREAM,
    FLOAT32,
    MAX,
    OTHER_STREAM,
    SUM,
    Configuration,
    Identifier,
    Recording,
    address,
    all_reduce,
    by_name,
    counted,
    made,
)


def caught(way: str, file: str, first: str = "", interposer: str = "") -> bool:
    """Call NCCL in one way, and tell whether the interposer saw the call."""
    if first:
        ctypes.CDLL(first, mode=ctypes.RTLD_GLOBAL)
    recorder = loaded(interposer) if interposer else None
    with Recording(recorder) if recorder is not None else Nothing() as recording:
        if way == "linked":
            ctypes.CDLL(file).consumer_all_reduce(ctypes.c_size_t(8), None, address(1))
        else:
            nccl = ctypes.CDLL(file if way == "path" else "libnccl.so.2")
            nccl.ncclAllReduce(None, None, ctypes.c_size_t(8), FLOAT32, SUM, None, address(1))
    return len(recording.calls) == 1


class Nothing:
    """What stands for a recording where there is no interposer."""

    def __init__(self) -> None:
        self.calls: list[dict[str, Any]] = []

    def __enter__(self) -> Nothing:
        return self

    def __exit__(self, *_error: object) -> None:
        pass


def loaded(interposer: str) -> ctypes.CDLL | None:
    try:
        return ctypes.CDLL(interposer, mode=os.RTLD_NOLOAD | os.RTLD_LAZY)
    except OSError:
        return None


def every_operation() -> list[dict[str, Any]]:
    nccl = by_name()
    communicator = made(nccl)
    send, recv, count = address(0x1000), address(0x2000), ctypes.c_size_t(6)
    end = communicator, address(CAPTURED_STREAM)
    with Recording(nccl) as recording:
        nccl.ncclAllReduce(send, recv, count, FLOAT32, SUM, *end)
        nccl.ncclReduce(send, recv, count, BFLOAT16, MAX, 1, *end)
        nccl.ncclAllGather(send, recv, count, FLOAT32, *end)
        nccl.ncclReduceScatter(send, recv, count, FLOAT32, AVG, *end)
        nccl.ncclBroadcast(send, recv, count, FLOAT32, 1, *end)
        nccl.ncclAlltoAll(send, recv, count, FLOAT32, *end)
        nccl.ncclSend(send, count, FLOAT32, 1, *end)
        nccl.ncclRecv(recv, count, FLOAT32, 1, *end)
        nccl.ncclPutSignal(send, count, FLOAT32, 1, None, ctypes.c_size_t(0), 0, 0, 0, *end)
        nccl.ncclSignal(1, 0, 0, 0, *end)
        nccl.ncclWaitSignal(1, (ctypes.c_int * 4)(1, 1, 0, 0), *end)
    return recording.calls


def configured() -> list[dict[str, Any]]:
    nccl = by_name()
    communicator = made(nccl)
    arguments = None, None, ctypes.c_size_t(6), FLOAT32, SUM, communicator, address(100)
    tagged = Configuration(size=ctypes.sizeof(Configuration), user_profiler_tag=77)
    # Of an NCCL whose configuration had no tag yet.
    shorter = Configuration(size=40, user_profiler_tag=77)
    with Recording(nccl) as recording:
        nccl.ncclAllReduceConfig(*arguments, ctypes.byref(tagged))
        nccl.ncclAllReduceConfig(*arguments, ctypes.byref(shorter))
        nccl.ncclAllReduceConfig(*arguments, None)
    return recording.calls


def twins(real: str) -> dict[str, Any]:
    """Call both names of one function, and one that calls another one inside NCCL."""
    nccl = by_name()
    communicator = made(nccl)
    before = counted(real, "ncclBroadcast", "ncclBcast", "ncclAllReduce")
    with Recording(nccl) as recording:
        all_reduce(nccl, communicator, 4)
        arguments = None, None, ctypes.c_size_t(5), FLOAT32, SUM, communicator, address(100)
        nccl.pncclAllReduce(*arguments)
        nccl.ncclBcast(None, ctypes.c_size_t(6), FLOAT32, 1, communicator, address(100))
    after = counted(real, *before)
    return {
        "calls": [(call["operation"], call["count"], call["root"]) for call in recording.calls],
        "reached": {name: after[name] - before[name] for name in before},
    }


def came_to_nothing() -> list[dict[str, Any]]:
    """Call what the profiler plugin is not told of."""
    nccl = by_name()
    alone, both = made(nccl, num_ranks=1), made(nccl)
    with Recording(nccl) as recording:
        all_reduce(nccl, alone, 4)
        all_reduce(nccl, both, 0)
    return recording.calls


def refused() -> dict[str, Any]:
    nccl = by_name()
    communicator = made(nccl)
    with Recording(nccl) as recording:
        results = [all_reduce(nccl, communicator, count) for count in (0xBAD, 4)]
    return {"results": results, "counts": [call["count"] for call in recording.calls]}


def grouped() -> list[dict[str, Any]]:
    nccl = by_name()
    communicator = made(nccl)
    with Recording(nccl) as recording:
        all_reduce(nccl, communicator, 1)
        nccl.ncclGroupStart()
        all_reduce(nccl, communicator, 2)
        nccl.ncclGroupStart()
        all_reduce(nccl, communicator, 3)
        nccl.ncclGroupEnd()
        all_reduce(nccl, communicator, 4)
        nccl.ncclGroupEnd()
        nccl.ncclGroupStart()
        all_reduce(nccl, communicator, 5)
        nccl.ncclGroupEnd()
        # What NCCL launches nothing of.
        nccl.ncclGroupStart()
        all_reduce(nccl, communicator, 6)
        nccl.ncclGroupSimulateEnd(None)
        all_reduce(nccl, communicator, 7)
    return recording.calls


def captures() -> list[list[tuple[int, int, int]]]:
    """Call on two streams that are captured and one that is not, for two recordings."""
    nccl = by_name()
    communicator = made(nccl)
    with Recording(nccl, 100) as first, Recording(nccl, 200) as second, Recording(nccl) as thread:
        for count, stream in ((1, 100), (2, 200), (3, OTHER_STREAM)):
            all_reduce(nccl, communicator, count, stream)
    all_reduce(nccl, communicator, 4)
    return [
        [(call["count"], call["capture_id"], call["captured"]) for call in recording.calls]
        for recording in (first, second, thread)
    ]


def threads() -> dict[str, list[int]]:
    """Record two threads at once, each for itself."""
    nccl = by_name()
    seen: dict[str, list[int]] = {}
    barrier = threading.Barrier(2)

    def work(name: str, begin: int) -> None:
        communicator = made(nccl)
        with Recording(nccl) as recording:
            barrier.wait(30)
            for count in range(begin, begin + 50):
                all_reduce(nccl, communicator, count, 0)
        seen[name] = [call["count"] for call in recording.calls]

    workers = [threading.Thread(target=work, args=one) for one in (("a", 100), ("b", 200))]
    for worker in workers:
        worker.start()
    for worker in workers:
        worker.join(30)
    return seen


def communicators(seed: str) -> list[tuple[int, int, int]]:
    """Make communicators in each way; tell the hash, rank and size of each."""
    nccl = by_name()
    world = made(nccl, num_ranks=4, rank=2, seed=int(seed))
    splits = [ctypes.c_void_p() for _ in range(3)]
    for color, split in zip((0, 1), splits, strict=False):
        nccl.ncclCommSplit(world, color, 0, ctypes.byref(split), None)
    nccl.ncclGroupStart()
    nccl.ncclCommSplit(world, 0, 0, ctypes.byref(splits[2]), None)
    nccl.ncclGroupEnd()
    everywhere = (ctypes.c_void_p * 2)()
    nccl.ncclCommInitAll(everywhere, 2, None)
    made_here = [world, *splits, *(ctypes.c_void_p(value) for value in everywhere)]
    with Recording(nccl) as recording:
        for communicator in made_here:
            all_reduce(nccl, communicator, 1)
    for communicator in made_here:
        nccl.ncclCommDestroy(communicator)
    return [(c["communicator_hash"], c["rank"], c["num_ranks"]) for c in recording.calls]


def made_before(real: str) -> list[tuple[int, int, int]]:
    """Use a communicator that the interposer has not seen the making of."""
    nccl = by_name()
    communicator = made(ctypes.CDLL(real), num_ranks=4, rank=3)
    with Recording(nccl) as recording:
        all_reduce(nccl, communicator, 1)
    return [(c["communicator_hash"], c["rank"], c["num_ranks"]) for c in recording.calls]


def trampolines(real: str) -> dict[str, Any]:
    """Call functions that are passed on unseen: with many arguments, and with what they return."""
    nccl = by_name()
    whole, floating = ctypes.c_long, ctypes.c_double

    class Team(ctypes.Structure):
        _fields_ = [(name, ctypes.c_int) for name in ("num_ranks", "rank", "stride")]

    nccl.ncclCommMemStats.restype = floating
    arguments = [*map(whole, range(1, 8)), *map(floating, range(1, 10))]
    sums = [nccl.ncclCommMemStats(*arguments) for _ in range(2)]
    communicator = made(nccl, num_ranks=5, rank=3)
    nccl.ncclTeamWorld.restype = Team
    team = nccl.ncclTeamWorld(communicator)
    return {
        "sums": sums,
        "team": [team.num_ranks, team.rank, team.stride],
        "reached": counted(real, "ncclCommMemStats", "ncclTeamWorld"),
        # The stub has no such function, and neither has an NCCL that is older than the table.
        "absent": nccl.ncclCommGrow(None, 0, None, 0, None, None),
    }


def from_the_future(consumer: str) -> dict[str, Any]:
    """Reach a function that the interposer does not know: linked, and by its handle."""
    nccl = by_name()
    nccl.graphguard_nccl_real_path.restype = ctypes.c_char_p
    assert nccl.graphguard_nccl_real_path()
    return {
        "linked": ctypes.CDLL(consumer, mode=os.RTLD_NOW).consumer_of_the_future(),
        "by_handle": hasattr(nccl, "ncclOfTheFuture"),
    }


def real_library() -> dict[str, Any]:
    """Ask which NCCL is called, and call what needs no GPU."""
    nccl = by_name()
    version, identifier = ctypes.c_int(), Identifier()
    nccl.graphguard_nccl_real_path.restype = ctypes.c_char_p
    nccl.graphguard_nccl_real_absence.restype = ctypes.c_char_p
    nccl.ncclGetErrorString.restype = ctypes.c_char_p
    return {
        "path": os.fsdecode(nccl.graphguard_nccl_real_path()),
        "absence": nccl.graphguard_nccl_real_absence().decode(),
        "version": (nccl.ncclGetVersion(ctypes.byref(version)), version.value),
        "identifier": nccl.ncclGetUniqueId(ctypes.byref(identifier)),
        "group": [nccl.ncclGroupStart(), nccl.ncclGroupEnd()],
        "text": nccl.ncclGetErrorString(1).decode(),
    }


def main() -> None:
    """Run the program that the command line names."""
    name, *arguments = sys.argv[1:]
    program: Callable[..., Any] = globals()[name]
    print(json.dumps(program(*arguments)))


if __name__ == "__main__":
    main()
