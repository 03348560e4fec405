"""What a vLLM worker is doing right now, as its pulse shows it to the watchdog and to others.

A worker is in a step, waits for a step's output, or starts up. Between those it is idle, however
long: it waits for the scheduler, and no rank waits for it.
"""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING

from graphguard.blackbox.pulse import ActivityKind
from graphguard.log import logger
from graphguard.session import process_rank

if TYPE_CHECKING:
    from graphguard._core import BlackBox as Ring
    from graphguard.blackbox.writer import BlackBox

STEP = int(ActivityKind.STEP)
OUTPUT = int(ActivityKind.OUTPUT)

_NAME_CHARACTERS = 80
_WHAT = {
    ActivityKind.STARTUP: "start-up",
    ActivityKind.CAPTURE: "start-up",
}


class Activities:
    """The activities of one worker.

    Attributes:
        ring: The native ring that has the pulse; None before the worker knows its rank, and in a
            process without a black box.
        steps: How many calls of the scheduler have begun.
    """

    def __init__(self) -> None:
        self.ring: Ring | None = None
        self.steps = 0
        self._box: BlackBox | None = None
        self._depths: dict[ActivityKind, int] = {}

    def start(self) -> None:
        """Open the black box of this process and start its watchdog: the rank is known now.

        Whatever fails is said, and the worker goes on without.
        """
        from graphguard.blackbox.writer import process_box

        try:
            self._box = process_box()
            if self._box is not None:
                self.ring = self._box.ring
            from graphguard.watch import watchdog

            if watchdog.start() and self._box is not None and process_rank()[1] > 1:
                from graphguard.vllm.peers import Peers

                Peers(self._box, lambda: self.steps).start()
        except Exception as error:  # noqa: BLE001 - vLLM must start without us
            logger().warning("stalls of this worker are not seen: %r", error)

    def name(self, text: str) -> int:
        """Return the number that stands for a name in the ring that is open."""
        from graphguard.blackbox.events import NO_NAME

        return NO_NAME if self._box is None else self._box.name(text)

    def failed(self, what: str, error: BaseException) -> None:
        """Leave a note that something ended with an exception. Of it, only the class is kept.

        What asks the process to end is no failure.
        """
        if self._box is None or not isinstance(error, Exception):
            return
        name = type(error).__name__[:_NAME_CHARACTERS]
        try:
            self._box.note(f"{what} failed: {name}", step=self.steps)
        except Exception as reason:  # noqa: BLE001 - the worker's own exception is what counts
            logger().warning("no note of %s that failed: %r", what, reason)

    @contextmanager
    def during(self, kind: ActivityKind, name: str) -> Iterator[None]:
        """Be in an activity of start-up. Inside one of the same kind it is that one."""
        ring, depth = self.ring, self._depths.get(kind, 0)
        if ring is None or depth:
            yield
            return
        self._depths[kind] = depth + 1
        number = self.name(name)
        ring.begin_activity(int(kind), number, 0)
        try:
            yield
        except BaseException as error:
            self.failed(_WHAT[kind], error)
            raise
        finally:
            ring.end_activity(int(kind), number)
            self._depths[kind] = depth

    def forget(self) -> None:
        """Show nothing any more: for a child after a fork, whose pulse would be its parent's."""
        self.__init__()  # type: ignore[misc]


activities = Activities()
"""Those of this process."""

os.register_at_fork(after_in_child=activities.forget)
