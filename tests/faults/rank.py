"""What a forked process does to be a rank: join, run the program of a fault, and end."""

from __future__ import annotations

import atexit
import logging
import os
import sys
from pathlib import Path
from typing import Any

import torch
import torch.distributed as dist

from graphguard import GraphguardError
from tests.faults.catalogue import ALL
from tests.faults.events import EventLog
from tests.faults.job import Job

RAISED_EXIT_CODE = 3
"""What a rank ends with whose program did not stand an error."""


class _LogToEvents(logging.Handler):
    """Keeps the warnings of graphguard among the events."""

    def __init__(self, events: EventLog) -> None:
        super().__init__(logging.WARNING)
        self._events = events

    def emit(self, record: logging.LogRecord) -> None:
        self._events.write("log", level=record.levelname, text=record.getMessage())


def run_rank(rank: int, request: dict[str, Any]) -> int:
    """Be one rank of a run, and return what the process is to end with."""
    fault, folder = ALL[request["fault"]], Path(request["folder"])
    os.environ.update(
        {
            "GRAPHGUARD_DIR": str(folder / "boxes"),
            "GRAPHGUARD_RING_ENTRIES": "1024",
            "GRAPHGUARD_AGREE_SECONDS": "15",
            **fault.environment,
        }
    )
    job = Job(rank, request["ranks"], fault.odd, fault.mode, folder)
    logging.getLogger("graphguard").addHandler(_LogToEvents(job.events))
    dist.init_process_group(
        "gloo",
        init_method=f"file://{folder / 'rendezvous'}",
        rank=rank,
        world_size=job.ranks,
    )
    code = 0
    try:
        with torch.no_grad():
            fault.program(job)
    except Exception as error:  # noqa: BLE001 - whatever it is, it is what is looked at
        code = RAISED_EXIT_CODE
        job.events.write("raised", **_described(error))
        # As the interpreter does with an error that nobody catches, before it leaves.
        sys.last_value = error
    else:
        job.events.write("finished")
    (folder / f"ended.{rank}").touch()
    # A program ends by leaving its interpreter. Only what else that does is left out: gloo aborts
    # processes whose groups are still there.
    atexit._run_exitfuncs()
    return code


def _described(error: Exception) -> dict[str, Any]:
    return {
        "error": type(error).__name__,
        "message": error.message if isinstance(error, GraphguardError) else str(error),
        "ours": isinstance(error, GraphguardError),
        "step": getattr(error, "step", None),
        "ranks": list(getattr(error, "ranks", None) or getattr(error, "missing", None) or ()),
    }
