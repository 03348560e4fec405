"""Keeping the manifest of a process up to date while it runs, for one that may be killed.

A guard writes its manifest when its warm-up ends. A program that records by itself, or hangs
before, would leave none. So each process of ``graphguard run`` writes what it has recorded soon
after it recorded it, from another thread, and once more when it ends.
"""

from __future__ import annotations

import os
import threading

from graphguard import environment
from graphguard.at_exit import at_exit
from graphguard.errors import GraphguardError
from graphguard.log import logger
from graphguard.session import Session, default_session

SECONDS_BETWEEN_WRITES = 0.5
"""Programs capture dozens of graphs in a row; they are written together."""


class KeptManifest:
    """Writes the manifest of a session after each change of it.

    Args:
        session: The signatures.
    """

    def __init__(self, session: Session) -> None:
        self._session = session
        self._writing = threading.Lock()
        self._waiting: threading.Timer | None = None
        self._changed = False
        self._writes_at_exit = False

    def note_change(self) -> None:
        """Write soon. Called when the session has changed; the program does not feel an error."""
        self._changed = True
        try:
            if not self._writes_at_exit:
                # Not before: a child of multiprocessing forgets what its parent asked for.
                self._writes_at_exit = True
                at_exit(self.write)
            if self._waiting is None:
                self._waiting = threading.Timer(SECONDS_BETWEEN_WRITES, self._write_late)
                self._waiting.daemon = True
                self._waiting.start()
        except Exception as error:  # noqa: BLE001
            self._waiting = None
            logger().warning("the manifest may not be up to date: %r", error)

    def write(self) -> None:
        """Write now what has changed. What cannot be written is a line in the log."""
        with self._writing:
            if not self._changed or environment.directory() is None:
                return
            self._changed = False
            try:
                self._session.write_manifest()
            except Exception as error:  # noqa: BLE001 - the program goes on without it
                reason = error.message if isinstance(error, GraphguardError) else repr(error)
                logger().warning("the manifest is not written: %s", reason)

    def forget(self) -> None:
        """Start anew: this is a child after a fork, and what was recorded is its parent's."""
        self._writing = threading.Lock()
        self._waiting = None
        self._changed = False
        self._writes_at_exit = False

    def _write_late(self) -> None:
        # Before the writing: what changes from now on needs another one.
        self._waiting = None
        self.write()


def keep() -> None:
    """Keep the manifest of this process from now on."""
    kept = KeptManifest(default_session)
    default_session.on_change = kept.note_change
    os.register_at_fork(after_in_child=kept.forget)
