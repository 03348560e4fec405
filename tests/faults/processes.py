"""Faults of processes: they die, stop, end, fork, and come back."""

from __future__ import annotations

import os
import signal
import threading
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import msgspec
import torch.distributed as dist

from graphguard import BatchDescriptor, GraphguardError, _core
from graphguard.agreement.group import Agreement
from graphguard.agreement.segment import Segment
from graphguard.agreement.store import members_of, store_of
from graphguard.agreement.watcher import DOUBT_SECONDS
from graphguard.environment import Mode
from tests.faults.at_launch import replaced
from tests.faults.expected import (
    GOES_WRONG,
    GONE,
    NOTHING,
    End,
    Expected,
    Program,
    Side,
    faults,
)
from tests.faults.job import AT, PLAN, Job
from tests.faults.model import alone


def dies_before_publishing(job: Job) -> None:
    """Let the faulty rank die between two steps."""
    job.prepare()
    if job.faulty:
        job.before[AT] = job.die
    job.serve()


def dies_after_publishing(job: Job) -> None:
    """Let the faulty rank die when it has published a step and not launched it."""
    job.prepare()
    if job.faulty:
        job.on_launch[AT] = job.die
    job.serve()


def dies_in_a_replay(job: Job) -> None:
    """Let the faulty rank die within a launch, in which it waits for the others."""
    job.prepare()
    if job.faulty:
        job.on_launch[AT] = lambda: threading.Thread(target=_die_soon, args=(job,)).start()
    else:
        job.before[AT] = lambda: job.wait_until(lambda: job.passed(job.odd) >= AT)
        job.on_launch[AT] = lambda: job.wait_for_end_of(job.odd)
    job.serve()


def _die_soon(job: Job) -> None:
    # So that the thread that launches is in its collective by then.
    time.sleep(0.1)
    job.die()


def fails_by_itself(job: Job) -> None:
    """Let the program of the faulty rank raise an error of its own between two steps."""

    def fail() -> None:
        job.fault()
        raise RuntimeError("an error of the program")

    job.prepare()
    if job.faulty:
        job.before[AT] = fail
    job.serve()


def ends_early(job: Job) -> None:
    """Let the faulty rank believe that there is nothing more to do."""
    job.prepare()
    if job.faulty:
        job.serve(PLAN[: AT - 1])
        job.fault()
        return
    job.serve()


def its_eager_run_fails(job: Job) -> None:
    """Let the faulty rank raise an error in the middle of a step, before its collectives."""

    def fail() -> None:
        job.fault()
        raise OverflowError("an error of the program")

    job.prepare()
    if job.faulty:
        job.on_launch[AT] = fail
    job.serve(replaced("drafter 7x1"))


def dies_when_all_is_done(job: Job) -> None:
    """Let the faulty rank die without a word after the last step; the others go on without it."""
    job.prepare()
    job.serve()
    if job.faulty:
        job.die()
    job.wait_for_end_of(job.odd)
    # Longer than a rank that waits in vain is let live.
    time.sleep(DOUBT_SECONDS + 1.0)


# ---- stopped -------------------------------------------------------------------------------------


def is_stopped(seconds: float, **settings: Any) -> Program:
    """Stop the faulty rank between two steps for so long, by SIGSTOP and SIGCONT."""

    def program(job: Job) -> None:
        job.prepare(**settings)
        if job.faulty:
            job.before[AT] = lambda: _stop(job, seconds)
        job.serve()

    return program


def _stop(job: Job, seconds: float) -> None:
    pid = os.getpid()
    child = os.fork()
    if child == 0:
        while Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] != "T":
            time.sleep(0.001)
        time.sleep(seconds)
        os.kill(pid, signal.SIGCONT)
        os._exit(0)
    job.fault()
    os.kill(pid, signal.SIGSTOP)
    os.waitpid(child, 0)


def dies_before_a_vote(job: Job) -> None:
    """Let the faulty rank die when the others vote."""
    job.prepare(vote_seconds=3.0)
    if job.faulty:
        job.before[AT] = job.die
    job.serve()


# ---- others in its place -------------------------------------------------------------------------


def forks(job: Job) -> None:
    """Let the faulty rank fork, and the child use the guard of its parent."""
    # Where the child is let launch, its launch must need nobody.
    job.prepare(alone if job.mode == "observe" else None)
    if job.faulty:
        job.before[AT] = lambda: _fork(job)
    job.serve()


def _fork(job: Job) -> None:
    job.fault()
    pid = os.fork()
    if pid == 0:
        answer = "launched"
        try:
            job.guards["drafter"][1](BatchDescriptor.parse("8x2"))
        except GraphguardError as error:
            answer = f"{type(error).__name__}: {error.message}"
        job.events.write("child", answer=answer)
        os._exit(0)
    os.waitpid(pid, 0)


def comes_back(job: Job) -> None:
    """Let the faulty rank die, and another process with its number try to take its place."""
    job.prepare()
    if job.faulty:
        job.before[AT] = job.die
    elif job.rank == 0:
        job.on_launch[AT] = lambda: _let_it_come_back(job)
    job.serve()


def _let_it_come_back(job: Job) -> None:
    job.wait_for_end_of(job.odd)
    pid = os.fork()
    if pid == 0:
        job.events.write("child", answer=" | ".join(_attempts(job)))
        os._exit(0)
    os.waitpid(pid, 0)


def _attempts(job: Job) -> list[str]:
    """Join with the others, open the old ledger by name, and take the place in it by force."""
    members = msgspec.structs.replace(members_of(dist.group.WORLD), rank=job.odd)
    store, old = store_of(dist.group.WORLD), job.ledger.segment
    return [
        _answer(lambda: Agreement(store, members, Mode.ENFORCE, seconds=0.3).join()),
        _answer(lambda: Segment.open(old.name, job.ranks)),
        _answer(lambda: _take_place(old, job.odd)),
    ]


def _take_place(old: Segment, rank: int) -> None:
    descriptor = os.open(f"/proc/{os.getppid()}/fd/{old.descriptor}", os.O_RDWR)
    Segment(descriptor, old.size, old.name).hold(rank)
    _core.Ledger(descriptor, old.size, rank, old.name.token, os.getpid(), True)


def _answer(act: Callable[[], object]) -> str:
    try:
        act()
    except (GraphguardError, RuntimeError) as error:
        return f"{type(error).__name__}: {str(error).splitlines()[0]}"
    return "joined"


# ---- the faults ----------------------------------------------------------------------------------

_TOLD = ("peer-gone",)
_FAILS = Expected(Side(End.RAISED), Side(End.ENDED, _TOLD))

FAULTS = [
    *faults(
        "process",
        "enforce",
        GONE,
        {
            "dies before it publishes": dies_before_publishing,
            "dies after it published": dies_after_publishing,
            "dies in a replay": dies_in_a_replay,
            "dies, and comes back": comes_back,
        },
    ),
    *faults(
        "process",
        "enforce",
        GONE,
        {"dies before it publishes, rank 0": dies_before_publishing},
        odd=0,
    ),
    *faults(
        "process",
        "observe",
        Expected(Side(End.KILLED), Side(End.ANY, _TOLD)),
        {"dies before it publishes": dies_before_publishing},
    ),
    *faults(
        "process",
        "enforce",
        Expected(
            Side(End.KILLED),
            Side(End.RAISED, ("peer-gone", "vote-timed-out", "peer-refused"), "RanksDiverged"),
            launches=False,
        ),
        {"dies before a vote": dies_before_a_vote},
    ),
    *faults(
        "process",
        "enforce",
        Expected(Side(End.KILLED), Side(End.FINISHED, _TOLD)),
        {"dies when all is done": dies_when_all_is_done},
    ),
    *faults(
        "process",
        "enforce",
        _FAILS,
        {"its program fails": fails_by_itself, "its eager run fails": its_eager_run_fails},
    ),
    *faults(
        "process",
        "enforce",
        Expected(Side(End.FINISHED), Side(End.ENDED, _TOLD)),
        {"ends early": ends_early},
    ),
    *faults(
        "process",
        "enforce",
        NOTHING,
        {
            "stopped for a while": is_stopped(1.2),
            "stopped for less than a vote takes": is_stopped(0.8, vote_seconds=10.0),
            "its child uses the guard": forks,
        },
    ),
    *faults(
        "process",
        "observe",
        NOTHING,
        {"stopped for a while": is_stopped(1.2), "its child uses the guard": forks},
    ),
    *faults(
        "process",
        "enforce",
        Expected(
            Side(End.RAISED, ("peer-refused",), "RanksDiverged"),
            Side(End.RAISED, ("vote-timed-out", "peer-refused"), "RanksDiverged"),
            launches=False,
        ),
        {"stopped for longer than a vote takes": is_stopped(1.5, vote_seconds=0.7)},
    ),
]

UNGUARDED = faults("process", "off", GOES_WRONG, {"its program fails": fails_by_itself})
