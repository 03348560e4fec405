"""One examination: two looks at all ranks, their stacks meanwhile, and the verdict."""

from __future__ import annotations

import threading
import time
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path

import msgspec

from graphguard.blackbox import reading
from graphguard.blackbox.events import Event
from graphguard.blackbox.history import BEGINS, STEP_EVENTS
from graphguard.blackbox.records import Record
from graphguard.errors import BlackBoxError
from graphguard.watch.examining.examined_job import Looks, Task, uses_cuda, wait
from graphguard.watch.looking.ranks import RankState
from graphguard.watch.stack_traces import stacks as stack_sampling
from graphguard.watch.stack_traces.stack_model import ProcessStacks
from graphguard.watch.stack_traces.wait_frames import Wait
from graphguard.watch.verdicts.stall import StallClass, StallVerdict
from graphguard.watch.verdicts.standing import standings
from graphguard.watch.verdicts.verdict import verdict

BETWEEN_SECONDS = 0.3
"""Between two looks. A watchdog beats three times in it; a loop of short sleeps wakes."""

STACKS_SECONDS = 0.8
"""How long stacks are waited for. A verdict without them says what it does not know."""

FLOOR_SECONDS = 0.3
NATIVE_SECONDS = 0.6


class Examined(msgspec.Struct, frozen=True):
    """What an examination saw, and what it came to."""

    before: tuple[RankState, ...]
    after: tuple[RankState, ...]
    stacks: dict[int, ProcessStacks]
    verdict: StallVerdict


def examine(
    task: Task,
    looks: Looks,
    *,
    known_stacks: Mapping[int, ProcessStacks] | None = None,
    may_be_slow: bool = True,
    may_be_first_run: bool = True,
) -> Examined:
    """Look twice at all ranks of a job, and say what their stall is.

    Args:
        task: Which job, and what was too old in it.
        looks: At its ranks.
        known_stacks: Stacks that were taken shortly before; new ones are taken if None.
        may_be_slow: Whether what ends by itself may be told as slow.
        may_be_first_run: The same for what runs for the first time and computes.
    """
    began = time.monotonic()
    before = looks.look()
    sampling = _Sampling(before) if known_stacks is None else None
    wait(BETWEEN_SECONDS, began)
    after = with_current_notes(looks.look())
    stacks = sampling.result(after) if sampling is not None else dict(known_stacks or {})

    def judged(firsts: Mapping[int, str] | None = None) -> StallVerdict:
        return verdict(
            before,
            after,
            stacks,
            suspect=task.suspect,
            members=task.members,
            first_runs=firsts,
            may_be_slow=may_be_slow,
            on_cuda=on_cuda,
        )

    on_cuda = frozenset(state.pid for state in after if state.process.alive and _cuda(state))
    told = judged()
    if sampling is not None and not told.ranks:
        unsure = [
            each.state.pid
            for each in standings(before, after, stacks, on_cuda)
            if each.waits and each.seen.wait is Wait.LIBRARY
        ]
        if unsure:
            stacks.update(_with_frames(stack_sampling.sample_native(unsure, NATIVE_SECONDS)))
            told = judged()
    if told.stall_class is StallClass.HOST_STUCK and may_be_slow and may_be_first_run:
        firsts = _first_runs(state for state in after if state.rank in told.ranks)
        told = judged(firsts) if firsts else told
    return Examined(before, after, stacks, told)


class _Sampling:
    """Takes the stacks of ranks while they are looked at. No process is stopped for it."""

    def __init__(self, states: Sequence[RankState]) -> None:
        self._pids = [state.pid for state in states if state.process.alive and state.pid > 0]
        self._taken: dict[int, ProcessStacks] = {}
        self._thread = threading.Thread(target=self._take, daemon=True)
        self._thread.start()

    def _take(self) -> None:
        self._taken = stack_sampling.sample(self._pids, STACKS_SECONDS)

    def result(self, states: Sequence[RankState]) -> dict[int, ProcessStacks]:
        """Wait for the stacks; ask processes themselves whose stacks nothing could read.

        Those have been looked at twice by now: a signal would wake them from a sleep.
        """
        self._thread.join(STACKS_SECONDS + 0.2)
        taken = dict(self._taken)
        silent = [state for state in states if state.pid in taken and not taken[state.pid].threads]
        floors = stack_sampling.floors_of(silent)
        if floors:
            asked = stack_sampling.sample(floors, FLOOR_SECONDS, floors=floors)
            taken.update(_with_frames(asked))
        return taken


def _with_frames(taken: Mapping[int, ProcessStacks]) -> dict[int, ProcessStacks]:
    return {pid: stacks for pid, stacks in taken.items() if stacks.threads}


def _cuda(state: RankState) -> bool:
    return state.process.state != "elsewhere" and uses_cuda(state.pid)


def with_current_notes(states: Iterable[RankState]) -> tuple[RankState, ...]:
    """Leave out the notes about errors after which a rank went on to other steps."""
    return tuple(
        msgspec.structs.replace(state, note="")
        if state.note and not _note_is_last(state)
        else state
        for state in states
    )


def _note_is_last(state: RankState) -> bool:
    for record in reversed(_records(state)):
        if record.event == Event.NOTE and record.note == state.note:
            return True
        if record.event == Event.CHECK or record.event in BEGINS:
            return False
    return False


def _first_runs(states: Iterable[RankState]) -> dict[int, str]:
    """Return which processes run something for the first time, and what."""
    return {state.pid: first for state in states if (first := first_run(state))}


def first_run(state: RankState) -> str:
    """Return what a rank runs for the first time; empty if it has run it before, or may have."""
    steps = [record for record in _records(state) if record.event in STEP_EVENTS]
    if not steps:
        return ""
    last = steps[-1]
    launches = [
        record
        for record in steps
        if record.event in BEGINS and (record.role, record.digest) == (last.role, last.digest)
    ]
    before = [record for record in launches if record.step != last.step]
    overwritten = steps[0].step > 1
    if before or overwritten:
        return ""
    return f"it runs {last.role or 'this'} {last.batch} for the first time"


def _records(state: RankState) -> Sequence[Record]:
    try:
        return reading.read(Path(state.ring)).records
    except BlackBoxError:
        return ()
