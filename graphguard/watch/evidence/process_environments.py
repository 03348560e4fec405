"""The environments of processes, read in a thread: the kernel may make a reader wait.

A process that hangs in the kernel may hold the lock that reading its environment takes.
"""

from __future__ import annotations

import os
import threading
from collections.abc import Sequence

from graphguard.watch.evidence.environment_record import read_environment
from graphguard.watch.evidence.redaction import Redactor


class Environments:
    """What processes were started with, as far as it could be read so far.

    Args:
        pids: The processes. Their environments are being read from now on.
    """

    def __init__(self, pids: Sequence[int]) -> None:
        self._pids = pids
        self._read: dict[int, dict[str, str]] = {}
        self._lock = threading.Lock()
        self._done = threading.Event()
        self._redactor: Redactor | None = None
        threading.Thread(target=self._run, name="environments", daemon=True).start()

    def known(self, seconds: float) -> dict[int, dict[str, str]]:
        """Return those that are known, after waiting so long at most for all of them."""
        self._done.wait(seconds)
        with self._lock:
            return dict(self._read)

    def redactor(self, seconds: float) -> Redactor:
        """Return what takes out secrets, those of these environments and of this process too."""
        known = self.known(seconds)
        if self._redactor is None or not self._done.is_set():
            self._redactor = Redactor([dict(os.environ), *known.values()])
        return self._redactor

    def _run(self) -> None:
        for pid in self._pids:
            found = read_environment(pid)
            with self._lock:
                self._read[pid] = found
        self._done.set()
