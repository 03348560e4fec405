"""What ``ps`` would say of the processes, and what their threads wait in."""

from __future__ import annotations

import os
from collections.abc import Iterable
from typing import Any

import msgspec

from graphguard.watch.evidence.redaction import Redactor
from graphguard.watch.looking.processes import process_state

_MAX_BYTES = 65_536
_STATUS = (
    "PPid",
    "Uid",
    "VmRSS",
    "VmPeak",
    "RssShmem",
    "VmSwap",
    "Threads",
    "voluntary_ctxt_switches",
    "nonvoluntary_ctxt_switches",
    "TracerPid",
    "SigBlk",
    "SigCgt",
    "Cpus_allowed_list",
)


def record(pids: Iterable[int], redactor: Redactor) -> dict[str, Any]:
    """Return what each process does, by its id."""
    return {"format": 1, "processes": {str(pid): _process(pid, redactor) for pid in pids}}


def _process(pid: int, redactor: Redactor) -> dict[str, Any]:
    arguments = _text(f"/proc/{pid}/cmdline").split("\0")
    status = dict(
        line.split(":", 1) for line in _text(f"/proc/{pid}/status").splitlines() if ":" in line
    )
    told: dict[str, Any] = redactor.tree(msgspec.to_builtins(process_state(pid)))
    told["command"] = redactor.arguments(arguments[:-1] or arguments)
    told["status"] = {name: status[name].strip() for name in _STATUS if name in status}
    # Where the kernel lets only the administrator see it, it is empty.
    told["kernel_stack"] = _text(f"/proc/{pid}/stack").splitlines()
    told["system_call"] = _text(f"/proc/{pid}/syscall").strip()
    told["open_files"] = _open_files(pid)
    return told


def _open_files(pid: int) -> int | None:
    try:
        return len(os.listdir(f"/proc/{pid}/fd"))
    except OSError:
        return None


def _text(path: str) -> str:
    try:
        with open(path, "rb", buffering=0) as file:
            return (file.read(_MAX_BYTES) or b"").decode("utf-8", "replace")
    except OSError:
        return ""
