"""Forks the ranks of the tests of stalls from one process that has torch in memory.

Requests come as lines of JSON on stdin: a folder, a number of ranks and their environment. The
answer is their processes. What a rank ends with goes into a file, ``code.<rank>``. When stdin
ends, all ranks that are left are ended.
"""

from __future__ import annotations

import json
import os
import selectors
import signal
import sys
import traceback
from contextlib import suppress
from pathlib import Path
from typing import Any


def _main() -> None:
    import torch
    import torch.distributed

    import tests.distributed.stall_programs  # noqa: F401 - imported once, for all ranks

    torch.set_num_threads(1)
    running: dict[int, Path] = {}
    selector = selectors.DefaultSelector()
    selector.register(sys.stdin.fileno(), selectors.EVENT_READ)
    waiting = b""
    try:
        while True:
            if selector.select(timeout=0.05):
                got = os.read(sys.stdin.fileno(), 65_536)
                if not got:
                    return
                *lines, waiting = (waiting + got).split(b"\n")
                for line in lines:
                    print(json.dumps(_start(json.loads(line), running)), flush=True)
            _reap(running)
    finally:
        for pid in running:
            with suppress(ProcessLookupError):
                os.kill(pid, signal.SIGKILL)


def _start(request: dict[str, Any], running: dict[int, Path]) -> list[int]:
    pids = []
    for rank in range(request["ranks"]):
        pid = os.fork()
        if pid == 0:
            _become(rank, request)
        running[pid] = Path(request["folder"], f"code.{rank}")
        pids.append(pid)
    return pids


def _reap(running: dict[int, Path]) -> None:
    for pid, file in list(running.items()):
        ended, status = os.waitpid(pid, os.WNOHANG)
        if ended:
            del running[pid]
            file.write_text(str(os.waitstatus_to_exitcode(status)))


def _become(rank: int, request: dict[str, Any]) -> None:
    """Be a rank, in a child. Does not return."""
    code = 1
    try:
        os.setsid()
        folder = Path(request["folder"])
        os.environ.update(request["environment"])
        for descriptor, name in ((0, os.devnull), (1, os.devnull), (2, folder / f"stderr.{rank}")):
            opened = os.open(name, os.O_RDWR | os.O_CREAT | os.O_APPEND, 0o600)
            os.dup2(opened, descriptor)
            os.close(opened)
        _serve(rank, request["ranks"], folder)
        code = 0
    except BaseException:  # noqa: BLE001 - the parent's code must not run here
        traceback.print_exc()
    finally:
        sys.stderr.flush()
        os._exit(code)


def _serve(rank: int, ranks: int, folder: Path) -> None:
    import torch
    import torch.distributed as dist

    from tests.distributed.stall_programs import guarded_steps

    dist.init_process_group(
        "gloo", init_method=f"file://{folder / 'rendezvous'}", rank=rank, world_size=ranks
    )
    with torch.no_grad():
        guarded_steps()


if __name__ == "__main__":
    os.environ["GLOO_SOCKET_IFNAME"] = "lo"
    _main()
