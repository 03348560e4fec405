"""Programs that load the interposer through graphguard's Python.

``python -m tests.native.interposed_python NAME LIBRARY ARGUMENT=VALUE ...``: the library is the one
that the tests have built, not an installed one.
"""

from __future__ import annotations

import ctypes
import json
import os
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

from graphguard import record
from graphguard.batch import BatchDescriptor
from graphguard.errors import ConfigurationError
from graphguard.recorders import nccl_interposer
from graphguard.recorders.nccl_log import NcclLog
from tests.native import nccl_by_ctypes


def enabled(*, consumer: str, first: str = "") -> dict[str, Any]:
    """Enable it, and record a capture in which NCCL is called by what is linked with it."""
    if first:
        ctypes.CDLL(first)
    try:
        real = nccl_interposer.enable()
    except ConfigurationError as error:
        return {"error": error.message, "hint": error.hint}
    # A second time it is there already.
    assert nccl_interposer.enable() == real
    with record("target", BatchDescriptor.of(4, 1)) as recording:
        ctypes.CDLL(consumer).consumer_all_reduce(ctypes.c_size_t(8), None, None)
    calls = [(call.operation, call.count, call.seen_by) for call in recording.signature.collectives]
    return {"real": str(real), "calls": calls}


def recorded() -> list[str]:
    """Record a capture of every kind of call, as the signature tells it."""
    nccl = nccl_by_ctypes.by_name()
    communicator = nccl_by_ctypes.made(nccl, num_ranks=1)
    with record("target", BatchDescriptor.of(4, 1)) as recording:
        nccl_by_ctypes.all_reduce(nccl, communicator, 4)
        nccl_by_ctypes.all_reduce(nccl, communicator, 5, nccl_by_ctypes.OTHER_STREAM)
    return [str(call) for call in recording.signature.collectives]


def beside_the_plugin(*, plugin: str) -> dict[str, int]:
    """Record with the plugin's log and then with the interposer's, which have the same names."""
    logs = {"plugin": NcclLog(ctypes.CDLL(plugin)), "interposer": nccl_interposer.log()}
    nccl = nccl_by_ctypes.by_name()
    communicator = nccl_by_ctypes.made(nccl)
    counts = {}
    for name, log in logs.items():
        assert log is not None
        log.begin()
        nccl_by_ctypes.all_reduce(nccl, communicator, 4)
        log.end()
        counts[name] = len(log.take().calls)
    return counts


def main() -> None:
    """Run the program that the command line names, with its arguments as NAME=VALUE."""
    name, library, *arguments = sys.argv[1:]
    nccl_interposer.LIBRARY = Path(library)
    program: Callable[..., Any] = globals()[name]
    print(json.dumps(program(**dict(argument.split("=", 1) for argument in arguments))))
    sys.stdout.flush()
    # Without the interpreter's end: the stub's handles are never given back.
    os._exit(0)


if __name__ == "__main__":
    main()
