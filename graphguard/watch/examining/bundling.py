"""Having the evidence of a stall kept, while its line in the log must not wait for it."""

from __future__ import annotations

import threading
import time
from contextlib import suppress
from importlib import import_module
from pathlib import Path

from graphguard.errors import GraphguardError
from graphguard.watch.examining.examination import Examined
from graphguard.watch.examining.examined_job import Task
from graphguard.watch.examining.telling import tell

PATH_SECONDS = 0.8
"""How long the line waits for the name of the directory."""

BUNDLE_SECONDS = 2.0
FINISH_SECONDS = 4.0
"""How long it is waited for before what is to be done about the stall is done."""


class Bundling:
    """Collects the evidence of one stall in a thread.

    Args:
        task: Which job.
        examined: What was seen, and the verdict.
    """

    def __init__(self, task: Task, examined: Examined) -> None:
        self._task = task
        self._examined = examined
        self._before = _bundles(task.directory)
        self._path: Path | None = None
        self._done = threading.Event()
        threading.Thread(target=self._collect, daemon=True).start()

    @property
    def name(self) -> str:
        """The name of the directory; empty while there is none."""
        return self._path.name if self._path is not None else ""

    def path_soon(self) -> str:
        """Return where the evidence is being put, as soon as that is known; empty if not soon."""
        until = time.monotonic() + PATH_SECONDS
        while self._path is None and not self._done.is_set() and time.monotonic() < until:
            new = sorted(_bundles(self._task.directory) - self._before)
            if new:
                self._path = self._task.directory / new[-1]
                break
            self._done.wait(0.01)
        return str(self._path) if self._path is not None else ""

    def finish(self) -> str:
        """Wait until the evidence is there, and return where."""
        self._done.wait(FINISH_SECONDS)
        return str(self._path) if self._path is not None else ""

    def _collect(self) -> None:
        told = self._examined.verdict
        try:
            from graphguard.watch.evidence import bundle

            self._path = bundle.collect(
                self._task.directory,
                self._task.job,
                self._examined.after,
                lambda _stacks: told,
                self._task.ledgers,
                time.monotonic() + BUNDLE_SECONDS,
                samples=self._examined.stacks or None,
            )
        except Exception as error:  # noqa: BLE001 - the stall is told and acted on without it
            message = error.message if isinstance(error, GraphguardError) else repr(error)
            tell(f"graphguard: the evidence of this stall is not complete: {message}")
        finally:
            self._done.set()


def prepare() -> None:
    """Import in the background what collects evidence: a third of all that an examiner imports."""
    threading.Thread(
        target=import_module, args=("graphguard.watch.evidence.bundle",), daemon=True
    ).start()


def _bundles(directory: Path) -> set[str]:
    from graphguard.watch.evidence.bundle import is_bundle_name

    with suppress(OSError):
        return {
            path.name for path in directory.iterdir() if is_bundle_name(path.name) and path.is_dir()
        }
    return set()
