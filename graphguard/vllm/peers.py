"""Noticing a rank that is not let run while the others have nothing left to do.

Each process has its own watchdog. A worker that is stopped after the last collective of a step
takes its watchdog with it; its peers have finished the step, and no activity of theirs gets old. So
a worker that is idle looks at the pulses of the others, and shows in its own what it waits for.

It is not asked whether the other one is in a step: it may have been stopped between the end of one
and the answer to its engine, which then waits for it.
"""

from __future__ import annotations

import threading
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING

from graphguard.blackbox.pulse import ActivityKind, read_pulse
from graphguard.errors import GraphguardError
from graphguard.log import logger

if TYPE_CHECKING:
    from graphguard.blackbox.writer import BlackBox

LOOK_SECONDS = 0.25
STILL_NS = 600_000_000
"""A watchdog beats each 100 ms. One that has not for so long is not let run, or hardly."""

NAME = "a rank that is not let run"
_LOOKS_PER_SEARCH = 40
_OTHER = int(ActivityKind.OTHER)


class Peers:
    """Looks at the other workers while this one is idle.

    Args:
        box: The black box of this worker, beside those of the others.
        steps: Returns how many steps have begun here: while it grows there is nothing to look for.
    """

    def __init__(self, box: BlackBox, steps: Callable[[], int]) -> None:
        self._box, self._steps = box, steps
        self._seen = -1
        self._looks = 0
        self._rings: tuple[Path, ...] = ()
        self._waiting = False
        self._name = box.name(NAME)
        self._ended = threading.Event()
        self._thread = threading.Thread(target=self._run, name="graphguard-peers", daemon=True)

    def start(self) -> None:
        """Look from now on."""
        self._thread.start()

    def stop(self) -> None:
        """Look no more."""
        self._ended.set()
        self._thread.join()

    def look(self) -> None:
        """Look once."""
        seen = self._steps()
        idle, self._seen = seen == self._seen, seen
        waits = idle and any(_stands_still(ring) for ring in self._found())
        if waits and not self._waiting:
            self._box.ring.begin_activity(_OTHER, self._name, 0)
        elif self._waiting and not waits:
            self._box.ring.end_activity(_OTHER, self._name)
        self._waiting = waits

    def _found(self) -> tuple[Path, ...]:
        """Return the black boxes of the others; they open them when this one does, or later."""
        if self._looks % _LOOKS_PER_SEARCH == 0:
            from graphguard.watch.verdicts.finding import job_of

            pids = job_of(self._box.path)
            self._rings = tuple(
                ring
                for ring in self._box.path.parent.glob("blackbox.rank*.ring")
                if ring != self._box.path and _pid_of(ring) in pids
            )
        self._looks += 1
        return self._rings

    def _run(self) -> None:
        while not self._ended.wait(LOOK_SECONDS):
            self._try_to_look()

    def _try_to_look(self) -> None:
        try:
            self.look()
        except (GraphguardError, OSError, ValueError) as error:
            logger().debug("peers were not looked at: %s", error)


def _stands_still(ring: Path) -> bool:
    pulse = read_pulse(ring)
    return pulse is not None and pulse.beat_age_ns is not None and pulse.beat_age_ns > STILL_NS


def _pid_of(ring: Path) -> int:
    text = ring.name.split(".")[2]
    return int(text) if text.isdecimal() else 0
