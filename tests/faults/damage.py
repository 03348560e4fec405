"""Faults of memory and disk: the ledger is damaged or has no room, the black box is gone."""

from __future__ import annotations

import os
import resource
import shutil
from collections.abc import Callable
from typing import Any

from graphguard import _core
from graphguard.agreement.members import LocalLedger
from tests.faults.expected import MISSING, NOTHING, End, Expected, Program, Side, both, faults
from tests.faults.job import AT, Job

# Where things lie, as csrc/core/ledger_layout.h has it: a header, the trouble word, the count of
# notices, 256 notices and 1024 decision cells of 64 bytes each, two lines for each rank, slots.
_LINE = 64
_TROUBLE = _LINE
_CELLS = (3 + 256) * _LINE
_RANKS = _CELLS + 1024 * _LINE

GARBAGE = 0xDEAD_BEEF_0BAD_F00D


def trouble_word(job: Job) -> int:
    return _TROUBLE


def cell(job: Job) -> int:
    """Return where it stands who decided on the step of the fault."""
    return _CELLS + AT % _core.LEDGER_SLOTS * _LINE


def passed_word(job: Job) -> int:
    """Return where it stands how far rank 0 has come."""
    return _RANKS


def slot(job: Job) -> int:
    """Return where the one who decided on the step of the fault has published its requests."""
    decided = int.from_bytes(os.pread(job.ledger.segment.descriptor, 8, cell(job)), "little")
    # Where nothing is decided everybody reads every slot.
    rank = (decided & 0xFFFF) - 1 if decided else 0
    slots = _RANKS + job.ranks * 2 * _LINE
    return slots + (rank * _core.LEDGER_SLOTS + AT % _core.LEDGER_SLOTS) * _LINE + 4 * 8


def damages(place: Callable[[Job], int], word: int = GARBAGE, **settings: Any) -> Program:
    """Let something in the faulty rank write into the ledger before its step; it comes last."""

    def program(job: Job) -> None:
        job.prepare(**settings)
        job.come_last()
        arrive = job.before.get(AT)

        def damaged() -> None:
            assert arrive is not None
            arrive()
            _write(job.ledger, place(job), word)

        if job.faulty:
            job.before[AT] = damaged
        job.serve()

    return program


def _write(ledger: LocalLedger, offset: int, word: int) -> None:
    """Write as a stray pointer would, through what this process has mapped."""
    name = ledger.segment.name.file
    with open("/proc/self/maps", encoding="ascii") as maps:
        start = next(int(line.partition("-")[0], 16) for line in maps if name in line)
    with open("/proc/self/mem", "r+b", buffering=0) as memory:
        memory.seek(start + offset)
        memory.write(word.to_bytes(8, "little"))


# ---- no room -------------------------------------------------------------------------------------


def no_room_for_the_ledger(job: Job) -> None:
    """Let the rank that makes the ledger be allowed no file of that size."""
    job.fault()
    if job.rank == 0:
        _, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
        resource.setrlimit(resource.RLIMIT_FSIZE, (128 * 1024, hard))
    job.prepare()
    job.serve()


def box_directory_removed(job: Job) -> None:
    """Remove the directory of the black boxes while they are written."""
    job.prepare()
    if job.faulty:
        job.before[AT] = lambda: _remove_boxes(job)
    job.serve()


def _remove_boxes(job: Job) -> None:
    job.fault()
    shutil.rmtree(job.folder / "boxes")


def no_black_box(job: Job) -> None:
    """Give the faulty rank a directory for its black box that others may write to."""
    # The one that is named is for manifests, too. This is the user's own.
    del os.environ["GRAPHGUARD_DIR"]
    os.environ["XDG_RUNTIME_DIR"] = str(job.folder)
    if job.faulty:
        os.environ["XDG_RUNTIME_DIR"] = str(job.folder / "open")
        directory = job.folder / "open" / "graphguard"
        directory.mkdir(parents=True)
        directory.chmod(0o777)
    job.fault()
    job.prepare()
    job.serve()


def no_manifest(job: Job) -> None:
    """Give the faulty rank a directory for its manifest that others may write to."""
    job.fault()
    if job.faulty:
        directory = job.folder / "open"
        directory.mkdir()
        directory.chmod(0o777)
        os.environ["GRAPHGUARD_DIR"] = str(directory)
    job.prepare()
    job.serve()


# ---- the faults ----------------------------------------------------------------------------------

_RAISES = Side(End.RAISED, ("damaged",), "RanksDiverged")
_SEES = Side(End.FINISHED, ("damaged",))

FAULTS = [
    *faults(
        "memory",
        "enforce",
        Expected(_RAISES, Side(End.ENDED, ("peer-refused",))),
        {"slot damaged": damages(slot), "decision damaged": damages(cell)},
    ),
    *faults(
        "memory",
        "enforce",
        Expected(_RAISES, Side(End.ENDED, ("damaged",))),
        {"trouble word damaged": damages(trouble_word)},
    ),
    *faults("memory", "observe", both(_SEES), {"trouble word damaged": damages(trouble_word)}),
    *faults(
        "memory",
        "observe",
        Expected(_SEES, Side(End.FINISHED, also=("damaged",))),
        {"slot damaged": damages(slot), "pace damaged": damages(passed_word, 1)},
    ),
    *faults(
        "memory",
        "enforce",
        both(Side(End.RAISED, (), "LedgerError"), launches=False),
        {"no room for the ledger": no_room_for_the_ledger},
    ),
    *faults(
        "memory",
        "observe",
        both(Side(End.FINISHED, log="are not compared")),
        {"no room for the ledger": no_room_for_the_ledger},
    ),
    *faults(
        "memory",
        "enforce",
        NOTHING,
        {
            "pace damaged": damages(passed_word),
            "black boxes removed": box_directory_removed,
            "no black box": no_black_box,
        },
    ),
    *faults(
        "memory",
        "enforce",
        Expected(Side(End.RAISED, (), "ManifestError"), MISSING, launches=False),
        {"the manifest cannot be written": no_manifest},
        environment={"GRAPHGUARD_AGREE_SECONDS": "1"},
    ),
]
