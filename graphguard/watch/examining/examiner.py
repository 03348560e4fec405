"""The examiner: a process of its own that finds out what holds a job up.

A watchdog starts it when something takes too long, once for all ranks of a job, and with the job's
lock, which it holds while it lives. It looks, says what it is, has the evidence kept, does what
``GRAPHGUARD_ON_STALL`` asks for, and stays until it is over. It needs neither torch nor CUDA, and
nothing of the stalled processes but that they can be read.

    python -m graphguard.watch.examining.examiner --directory DIR --job JOB --rank R --pid P …
"""

from __future__ import annotations

import argparse
import fcntl
import itertools
import os
import signal
import sys
import time
from collections.abc import Sequence
from contextlib import suppress
from pathlib import Path

import msgspec

from graphguard import environment
from graphguard.errors import ConfigurationError, GraphguardError
from graphguard.watch.evidence.ledger_summary import LedgerUnreadable, parse_inherited
from graphguard.watch.examining import incident as incidents
from graphguard.watch.examining.actions import act
from graphguard.watch.examining.bundling import Bundling, prepare
from graphguard.watch.examining.examination import Examined, examine
from graphguard.watch.examining.examined_job import Looks, Task, kind_name, wait
from graphguard.watch.examining.following import Following
from graphguard.watch.examining.incident import Incident, Stuck, still_stuck, stuck_of
from graphguard.watch.examining.telling import slow_line, stall_line, tell, was_slow_line
from graphguard.watch.looking.ranks import RankState
from graphguard.watch.verdicts.stall import StallClass, StallVerdict, Suspect

LIFE_SECONDS = 3_600.0
"""How long an examiner follows a stall at most."""

AGAIN_SECONDS = 1.0
"""How often what is slow is looked at again."""

STACKS_AGAIN_SECONDS = 5.0
"""How often new stacks are taken of it."""

NICER = 5
"""By how much an examiner asks to come before others until the stall is told: they may spin."""

YOUNG_NS = 1_000_000_000
"""What has begun less than this ago is not part of a stall, unless the limit is shorter."""


class Examiner:
    """Examines one stall, from the first look to its end.

    Args:
        task: What it was started for.
        nice: The priority of this process when the stall has been told.
    """

    def __init__(self, task: Task, nice: int = 0) -> None:
        self._task = task
        self._nice = nice
        self._looks = Looks(task)
        self._slow_seconds = _seconds(environment.slow_seconds, 300.0)
        self._startup_seconds = _seconds(environment.startup_seconds, 60.0)
        self._until = time.monotonic() + LIFE_SECONDS
        self._young_ns = min(YOUNG_NS, task.suspect.watched_ns // 2)

    def run(self) -> None:
        """Examine it."""
        states = self._looks.look()
        known = incidents.kept(self._task.directory, self._task.job)
        if known is not None and not still_stuck(known.stuck, stuck_of(states)):
            known = None
        if known is not None and known.told and not known.slow:
            # Another examiner has told it, and was ended before it was over.
            self._follow(known, states)
            return
        if not self._suspects(states):
            return
        prepare()
        examined = self._not_slow(known)
        if examined is not None:
            self._stall(examined)

    def _suspects(self, states: Sequence[RankState]) -> tuple[Stuck, ...]:
        """Return what the watchdog may have meant, as far as it is under way."""
        pid = self._task.suspect.pid
        return tuple(each for each in stuck_of(states, self._young_ns) if each.pid == pid)

    def _not_slow(self, known: Incident | None) -> Examined | None:
        """Examine it for as long as it is slow; return a stall, or None if it is over."""
        told_slow = known is not None and known.slow
        first: tuple[Stuck, ...] = known.stuck if known is not None else ()
        stacks_from = float("-inf")
        examined: Examined | None = None
        suspect = self._task.suspect
        while time.monotonic() < self._until:
            began = time.monotonic()
            fresh = examined is None or began - stacks_from >= STACKS_AGAIN_SECONDS
            told = suspect.watched_ns / 1e9
            seconds = examined.verdict.seconds if examined is not None else told
            examined = examine(
                self._task,
                self._looks,
                known_stacks=None if fresh or examined is None else examined.stacks,
                may_be_slow=seconds < self._slow_seconds,
                # The limit of a start-up allows for what is done for the first time.
                may_be_first_run=seconds < self._startup_seconds
                and suspect.kind not in ("startup", "capture"),
            )
            stacks_from = began if fresh else stacks_from
            stuck = stuck_of(examined.after, self._young_ns)
            first = still_stuck(first, stuck) if first else stuck
            if not first or not self._suspects(examined.after):
                if told_slow:
                    tell(was_slow_line(seconds))
                    self._forget()
                return None
            if examined.verdict.stall_class is not StallClass.SLOW:
                if fresh:
                    return examined
                # Stacks of some seconds ago do not make a stall.
                stacks_from = float("-inf")
                continue
            if not told_slow:
                told_slow = True
                tell(slow_line(examined.verdict, self._slow_seconds))
                _be_nice(self._nice)
                self._keep(examined.verdict, first, bundle="", slow=True)
            wait(AGAIN_SECONDS, began)
        return None

    def _stall(self, examined: Examined) -> None:
        told = examined.verdict
        stuck = stuck_of(examined.after, self._young_ns)
        bundling = Bundling(self._task, examined)
        tell(stall_line(told, bundling.path_soon()))
        _be_nice(self._nice)
        kept = self._keep(told, stuck, bundle=bundling.name)
        bundle = bundling.finish()
        if bundling.name != kept.bundle:
            kept = self._keep(told, stuck, bundle=bundling.name)
        done = act(told, bundle, examined.after)
        if done:
            tell(f"graphguard: STALL [{told.stall_class}] {done}")
            incidents.append_later(self._task.directory, kept.bundle, "acted", how=done)
        kept = msgspec.structs.replace(kept, acted=True)
        incidents.keep(self._task.directory, kept)
        self._follow(kept, examined.after)

    def _follow(self, incident: Incident, states: Sequence[RankState]) -> None:
        Following(self._task, self._looks, incident, states, self._until).run()

    def _keep(
        self,
        told: StallVerdict,
        stuck: tuple[Stuck, ...],
        *,
        bundle: str,
        slow: bool = False,
    ) -> Incident:
        since = time.time_ns() - int(told.seconds * 1e9)
        kept = Incident(
            job=self._task.job,
            stall_class=str(told.stall_class),
            ranks=told.ranks,
            since_ns=since,
            bundle=bundle,
            stuck=stuck,
            told=True,
            slow=slow,
        )
        incidents.keep(self._task.directory, kept)
        return kept

    def _forget(self) -> None:
        known = incidents.kept(self._task.directory, self._task.job)
        if known is not None:
            incidents.keep(self._task.directory, msgspec.structs.replace(known, over=True))


def main(arguments: Sequence[str] | None = None) -> int:
    """Examine what the arguments say; return 2 if they cannot be meant."""
    given = sys.argv[1:] if arguments is None else arguments
    nice = os.getpriority(os.PRIO_PROCESS, 0)
    if arguments is None:
        close_what_is_not_given(given)
        _be_nice(nice - NICER)
        # A group in the background of a terminal that was told `stty tostop` is stopped otherwise.
        signal.signal(signal.SIGTTOU, signal.SIG_IGN)
    try:
        task = read_arguments(given)
    except (ValueError, LedgerUnreadable) as error:
        tell(f"graphguard: the examiner was called wrongly: {error}")
        return 2
    if task.lock >= 0:
        # What it starts must not hold the lock when it is gone.
        with suppress(OSError):
            os.set_inheritable(task.lock, False)
    try:
        sole = sole_examiner(task)
        if sole is not None:
            Examiner(sole, nice).run()
    except Exception as error:  # noqa: BLE001 - one line is what the log can use
        suspect = task.suspect
        message = error.message if isinstance(error, GraphguardError) else repr(error)
        tell(
            f"graphguard: rank {suspect.rank} (pid {suspect.pid}) has been in {suspect.kind} for "
            f"{suspect.watched_ns / 1e9:.1f} s, and it could not be examined: {message}"
        )
        return 1
    return 0


def close_what_is_not_given(arguments: Sequence[str]) -> None:
    """Close what this process has inherited besides what its arguments name.

    A stalled process may have pipes and sockets by whose end others learn that it has died: vLLM's
    workers and their executor do. An open copy would keep that from them.
    """
    named = [
        following.partition(":")[0]
        for option, following in itertools.pairwise(arguments)
        if option in ("--lock-fd", "--ledger")
    ]
    kept = sorted({int(text) for text in named if text.isascii() and text.isdigit()})
    first = 3
    for descriptor in kept:
        os.closerange(first, descriptor)
        first = max(first, descriptor + 1)
    with suppress(OSError, ValueError):
        os.closerange(first, os.sysconf("SC_OPEN_MAX"))


def read_arguments(arguments: Sequence[str]) -> Task:
    """Return what an examiner is started for.

    Raises:
        ValueError: If a number is none.
        LedgerUnreadable: If what names a ledger does not.
    """
    parser = argparse.ArgumentParser(prog="graphguard.watch.examining.examiner", allow_abbrev=False)
    parser.add_argument("--directory", required=True)
    parser.add_argument("--job", required=True)
    parser.add_argument("--rank", type=int, required=True)
    parser.add_argument("--pid", type=int, required=True)
    parser.add_argument("--ring", default="")
    parser.add_argument("--lane", default="")
    parser.add_argument("--watched-ms", type=int, default=0)
    parser.add_argument("--lock-fd", type=int, default=-1)
    parser.add_argument("--ledger", action="append", default=[])
    given = parser.parse_args(list(arguments))
    return Task(
        directory=Path(given.directory),
        job=given.job,
        suspect=Suspect(
            given.rank, given.pid, kind_name(given.lane), max(0, given.watched_ms) * 1_000_000
        ),
        ledgers=tuple(parse_inherited(text) for text in given.ledger),
        lock=given.lock_fd,
    )


def sole_examiner(task: Task) -> Task | None:
    """Return the task under the name of its job, or None if another examiner is at it.

    Ranks that share a ledger share the name of their job, and so its lock. Those that share only a
    directory have a lock each: the one of the first rank is then everybody's.
    """
    if task.ledgers:
        return task
    alive = [state for state in Looks(task).look() if state.process.alive]
    first = min(alive, key=lambda state: (state.rank, state.pid), default=None)
    if first is None or first.pid == task.suspect.pid:
        return task
    job = str(first.pid)
    flags = os.O_RDWR | os.O_CREAT | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC
    try:
        descriptor = os.open(task.directory / f"stall-{job}.lock", flags, 0o600)
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return None
    except OSError:
        return task
    # Held until this process ends.
    return msgspec.structs.replace(task, job=job, lock=descriptor)


def _be_nice(value: int) -> None:
    """Ask for a priority. Most users may not raise theirs; then it stays as it is."""
    with suppress(OSError):
        os.setpriority(os.PRIO_PROCESS, 0, value)


def _seconds(of_environment: object, default: float) -> float:
    assert callable(of_environment)  # noqa: S101 - one of graphguard.environment
    try:
        return float(of_environment())
    except ConfigurationError:
        # It was told when the watchdog started.
        return default


if __name__ == "__main__":
    sys.exit(main())
