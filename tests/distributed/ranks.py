"""Real ranks for tests: processes with gloo, started, bounded and ended.

A test names a function of ``tests.distributed.programs``, or ``module:function`` of another file
there; each rank runs it and what it returns comes back. Run as a module, this file is one rank.
"""

from __future__ import annotations

import importlib
import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

TIMEOUT_SECONDS = 120.0


def run(program: str, ranks: int, folder: Path, **environment: str) -> list[Any]:
    """Run a program on real ranks and return what each of them returned.

    A rank that fails or does not end in time fails the test, with what it wrote to stderr.
    """
    processes = [_start(program, rank, ranks, folder, environment) for rank in range(ranks)]
    deadline = time.monotonic() + TIMEOUT_SECONDS
    try:
        for process in processes:
            process.wait(timeout=max(0.0, deadline - time.monotonic()))
    except subprocess.TimeoutExpired:
        pass
    finally:
        for process in processes:
            if process.poll() is None:
                os.killpg(process.pid, signal.SIGKILL)
                process.wait()
    codes = [process.returncode for process in processes]
    if any(codes):
        stderr = "\n".join((folder / f"stderr.{r}").read_text()[-3000:] for r in range(ranks))
        raise AssertionError(f"{program} on {ranks} ranks ended with {codes}:\n{stderr}")
    return [json.loads((folder / f"result.{rank}").read_text()) for rank in range(ranks)]


def _start(
    program: str, rank: int, ranks: int, folder: Path, environment: dict[str, str]
) -> subprocess.Popen[bytes]:
    arguments = [program, str(rank), str(ranks), str(folder)]
    with (folder / f"stderr.{rank}").open("wb") as stderr:
        return subprocess.Popen(
            [sys.executable, "-m", "tests.distributed.ranks", *arguments],
            stdin=subprocess.DEVNULL,
            stdout=subprocess.DEVNULL,
            stderr=stderr,
            start_new_session=True,
            cwd=Path(__file__).parents[2],
            env={"GLOO_SOCKET_IFNAME": "lo", **os.environ, **environment},
        )


def _main(program: str, rank: int, ranks: int, folder: Path) -> None:
    import torch
    import torch.distributed as dist

    module, _, function = program.rpartition(":")
    programs = importlib.import_module(f"tests.distributed.{module or 'programs'}")
    torch.set_num_threads(1)
    dist.init_process_group(
        "gloo", init_method=f"file://{folder / 'rendezvous'}", rank=rank, world_size=ranks
    )
    with torch.no_grad():
        result = getattr(programs, function)()
    (folder / f"result.{rank}").write_text(json.dumps(result))
    if dist.is_initialized():
        dist.destroy_process_group()


if __name__ == "__main__":
    _main(sys.argv[1], int(sys.argv[2]), int(sys.argv[3]), Path(sys.argv[4]))
