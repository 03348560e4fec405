"""The watchdog of this process: a native thread that has stalls examined.

The thread is in ``csrc/core/watchdog.cpp``; here is what it is told: its limits, and what is to be
started when something takes too long.
"""

from __future__ import annotations

import os
import sys
import threading
from collections.abc import Sequence
from typing import TYPE_CHECKING

from graphguard import _core, environment
from graphguard.at_exit import at_exit
from graphguard.blackbox.writer import process_box
from graphguard.errors import ConfigurationError
from graphguard.log import logger
from graphguard.watch.stack_traces import faulthandler_floor

if TYPE_CHECKING:
    from graphguard.blackbox.writer import BlackBox

TICK_SECONDS = 0.1
EXAMINER = "graphguard.watch.examining.examiner"

_NOT_FOR_THE_EXAMINER = frozenset(
    {
        "LD_PRELOAD",
        "NCCL_PROFILER_PLUGIN",
        "PYTHONSTARTUP",
        "PYTHONBREAKPOINT",
        environment.INSTALL.name,
        environment.INTERPOSE.name,
        environment.NCCL_PLUGIN.name,
        environment.RUN.name,
        environment.METRICS_RUN.name,
    }
)
"""What would have the examiner record itself, or load what the stalled program loads."""


class _ProcessWatchdog:
    """The watchdog of this process, once it was asked for."""

    def __init__(self) -> None:
        self._starting = threading.Lock()
        self._native: _core.Watchdog | None = None
        self._asked = False

    def start(self) -> _core.Watchdog | None:
        with self._starting:
            if not self._asked:
                self._asked = True
                try:
                    self._native = _started()
                except ConfigurationError:
                    raise
                except Exception as error:  # noqa: BLE001 - a program must run without it
                    logger().warning("stalls are not looked for: %r", error)
                if self._native is not None:
                    at_exit(self._native.stop)
            return self._native

    @property
    def native(self) -> _core.Watchdog | None:
        return self._native


def start() -> bool:
    """Start the watchdog of this process. Called again, it does nothing.

    Returns:
        Whether one runs. Why not is logged, once: ``GRAPHGUARD_STALL_SECONDS`` is 0, or there is
        no black box, in which it would look.

    Raises:
        ConfigurationError: If the environment gives limits that cannot be meant.
    """
    return _process.start() is not None


def watch_ledger(descriptor: int, size: int, name: str, ranks: Sequence[int], job: str) -> None:
    """Let the watchdog know of the ranks that share a ledger; without a watchdog, do nothing.

    Args:
        descriptor: Of the ledger's memory.
        size: Its bytes.
        name: The name of the group.
        ranks: The global ranks that share it, by their place.
        job: What all of them call it: they are examined together.
    """
    native = _process.start()
    if native is None:
        return
    try:
        native.add_ledger(descriptor, size, name, list(ranks), job)
    except OSError as error:
        logger().warning("stalls of %s are examined without its ledger: %s", name, error)


def forget_ledger(job: str) -> None:
    """Tell the watchdog that this process has left a ledger."""
    if _process.native is not None:
        _process.native.remove_ledger(job)


def _started() -> _core.Watchdog | None:
    environment.check_stall_settings()
    limit = environment.stall_seconds()
    if limit == 0:
        logger().info("stalls are not looked for (%s=0)", environment.STALL_SECONDS.name)
        return None
    box = process_box()
    if box is None:
        # Why not is said elsewhere, or was asked for.
        logger().info("stalls are not looked for: this process has no black box")
        return None
    native = _core.Watchdog(
        box.ring,
        limit,
        max(limit, environment.startup_seconds()),
        min(TICK_SECONDS, limit / 5),
        _command(box),
        _environment(),
        str(box.path.parent),
        str(os.getpid()),
    )
    try:
        native.start()
    except OSError as error:
        logger().warning("stalls are not looked for: %s", error)
        return None
    # Where nothing may read this process, it writes its stacks itself when it is asked.
    faulthandler_floor.register(box)
    return native


def _command(box: BlackBox) -> list[str]:
    return [
        sys.executable or "python3",
        "-m",
        EXAMINER,
        "--directory",
        str(box.path.parent),
        "--ring",
        str(box.path),
        "--rank",
        box.path.name.split(".")[1].removeprefix("rank"),
        "--pid",
        str(os.getpid()),
    ]


def _environment() -> list[str]:
    """Return the variables of the examiner: those of now, without what would mislead it."""
    package = os.path.dirname(os.path.dirname(os.path.abspath(__file__)))
    root = os.path.dirname(package)
    hook = os.path.join(package, "running", "hook")
    paths = [root, *os.environ.get("PYTHONPATH", "").split(os.pathsep)]
    kept = {name: value for name, value in os.environ.items() if name not in _NOT_FOR_THE_EXAMINER}
    kept["PYTHONPATH"] = os.pathsep.join(path for path in paths if path and path != hook)
    return [f"{name}={value}" for name, value in kept.items()]


def _after_fork() -> None:
    global _process  # noqa: PLW0603 - the child has no thread, and a black box of its own
    # The parent's object is kept: its end would wait for a thread that is not in this process.
    _parents.append(_process)
    _process = _ProcessWatchdog()


_parents: list[_ProcessWatchdog] = []
_process = _ProcessWatchdog()
os.register_at_fork(after_in_child=_after_fork)
