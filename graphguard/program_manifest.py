"""The manifest of a program that does not know of it: written beside its captures.

A program that hangs is killed, and leaves what is on the disk by then. So the manifest is written
before the first launch that follows a capture. Programs that capture and launch in turns would
write it again for every graph, so a second one waits until it is worth it.
"""

from __future__ import annotations

import time

from graphguard import environment
from graphguard.at_exit import at_exit
from graphguard.log import logger
from graphguard.session import Session

MIN_SECONDS = 1.0
"""Between two writes, unless a good part of the manifest is new."""

WORTH = 8
"""One new graph in so many is worth a write at once."""


class ProgramManifest:
    """Writes the manifest of a session where ``GRAPHGUARD_DIR`` says, if it says so.

    Args:
        session: Whose manifest it is.

    Attributes:
        pending: Whether there is something that no file holds yet.
    """

    def __init__(self, session: Session) -> None:
        self.pending = False
        self._session = session
        self._changes = 0
        self._written_at = float("-inf")
        self._registered = False

    def changed(self) -> None:
        """Note that a graph was captured or described."""
        if environment.directory() is None:
            return
        self.pending = True
        self._changes += 1
        if not self._registered:
            self._registered = True
            at_exit(self.write)

    def write_if_due(self) -> None:
        """Write it if that is worth it by now."""
        recently = time.monotonic() - self._written_at < MIN_SECONDS
        if not recently or self._changes * WORTH >= len(self._session.signatures):
            self.write()

    def write(self) -> None:
        """Write it if anything has changed. An error is logged: no program ends for want of it."""
        if not self.pending:
            return
        self.pending, self._changes = False, 0
        try:
            path = self._session.write_manifest()
        except Exception as error:  # noqa: BLE001
            logger().warning("the manifest is not written: %s", error)
        else:
            logger().debug("manifest written to %s", path)
        self._written_at = time.monotonic()
