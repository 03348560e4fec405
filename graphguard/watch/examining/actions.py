"""What is done about a stall when its evidence is kept: nothing more, an end, or a command.

Only a stall is acted on. What is slow never is.
"""

from __future__ import annotations

import os
import shlex
import signal
import subprocess
import time
from collections.abc import Sequence
from contextlib import suppress
from typing import NamedTuple

from graphguard import environment
from graphguard.errors import ConfigurationError
from graphguard.watch.looking.processes import process_state
from graphguard.watch.looking.ranks import RankState
from graphguard.watch.verdicts.stall import StallVerdict

ABORT_GRACE_SECONDS = 5.0
"""How long a process may take to end by SIGABRT. One that is stopped does not."""

COMMAND_SECONDS = 30.0
"""How long a command may run."""

BUNDLE_VARIABLE = "GRAPHGUARD_STALL_BUNDLE"
CLASS_VARIABLE = "GRAPHGUARD_STALL_CLASS"
RANKS_VARIABLE = "GRAPHGUARD_STALL_RANKS"

_POLL_SECONDS = 0.05


class Target(NamedTuple):
    """A process of a rank, and when it started, which tells it from a later one of that id."""

    rank: int
    pid: int
    started_ticks: int


def act(told: StallVerdict, bundle: str, states: Sequence[RankState]) -> str:
    """Do what ``GRAPHGUARD_ON_STALL`` asks for, and return in words what was done.

    Args:
        told: The verdict.
        bundle: Where its evidence is; empty if there is none.
        states: All ranks of this node.
    """
    try:
        action, command = environment.on_stall()
    except ConfigurationError as error:
        return f"nothing was done: {error.message}"
    if action == "abort":
        return abort(targets(states))
    if action == "signal":
        return run_command(command, told, bundle)
    return ""


def targets(states: Sequence[RankState]) -> tuple[Target, ...]:
    """Return the processes of ranks that live on this node."""
    host = os.uname().nodename
    return tuple(
        Target(state.rank, state.pid, state.process.started_ticks)
        for state in states
        if state.process.alive
        and state.host == host
        and state.process.started_ticks > 0
        and state.pid > 1
    )


def abort(wanted: Sequence[Target], grace: float = ABORT_GRACE_SECONDS) -> str:
    """End processes by SIGABRT, and those that do not end by it by SIGKILL."""
    opened: list[tuple[Target, int]] = []
    try:
        for target in wanted:
            with suppress(OSError):
                descriptor = os.pidfd_open(target.pid)
                opened.append((target, descriptor))
        # Asked after each was opened: a descriptor stays with its process.
        ours = [(target, descriptor) for target, descriptor in opened if _is_still(target)]
        for _, descriptor in ours:
            _send(descriptor, signal.SIGABRT)
        left = _left_after(ours, grace)
        for _, descriptor in left:
            _send(descriptor, signal.SIGKILL)
    finally:
        for _, descriptor in opened:
            os.close(descriptor)
    killed = f", {len(left)} of them by SIGKILL" if left else ""
    return f"ended {len(ours)} of {len(wanted)} processes of this node by SIGABRT{killed}"


def run_command(
    command: str, told: StallVerdict, bundle: str, seconds: float = COMMAND_SECONDS
) -> str:
    """Run a command of the user, without a shell, for so long at most."""
    try:
        argv = shlex.split(command)
    except ValueError as error:
        return f"the command was not run: {error}"
    if not argv:
        return "the command was not run: it is empty"
    given = {
        **os.environ,
        BUNDLE_VARIABLE: bundle,
        CLASS_VARIABLE: str(told.stall_class),
        RANKS_VARIABLE: ",".join(map(str, told.ranks)),
    }
    try:
        process = subprocess.Popen(
            argv,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.DEVNULL,
            stderr=None,
            env=given,
            start_new_session=True,
        )
    except OSError as error:
        return f"the command was not run: {argv[0]}: {error.strerror}"
    try:
        code = process.wait(seconds)
    except subprocess.TimeoutExpired:
        # It has a session of its own, so the group is its own and nobody else's.
        with suppress(ProcessLookupError):
            os.killpg(process.pid, signal.SIGKILL)
        process.wait()
        return f"the command {argv[0]} was ended after {seconds:g} s"
    return f"the command {argv[0]} ended with {code}"


def _is_still(target: Target) -> bool:
    state = process_state(target.pid, 0)
    return state.alive and state.started_ticks == target.started_ticks


def _send(descriptor: int, number: signal.Signals) -> None:
    with suppress(OSError):
        signal.pidfd_send_signal(descriptor, number)


def _left_after(processes: Sequence[tuple[Target, int]], grace: float) -> list[tuple[Target, int]]:
    until = time.monotonic() + grace
    while True:
        left = [each for each in processes if _is_still(each[0])]
        if not left or time.monotonic() >= until:
            return left
        time.sleep(_POLL_SECONDS)
