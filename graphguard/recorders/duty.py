"""Which recorders record a capture, and the one sequence that comes of what they saw.

On duty are the recorder of torch.distributed where torch is loaded, that of cupy's communicators
where these are recorded, and the logs of NCCL's profiler plugin and of the interposer where this
process has loaded them. Each may fail: the program that is
being recorded goes on as it would have, and the failure is told at the end.
"""

from __future__ import annotations

import sys
from collections.abc import Callable, Sequence
from functools import partial
from types import TracebackType
from typing import TYPE_CHECKING, Protocol

from graphguard.errors import GraphguardError
from graphguard.log import logger
from graphguard.recorders.merge import Merged, Process, merge
from graphguard.recorders.nccl_calls import NcclCall, Source

if TYPE_CHECKING:
    from graphguard.recorders.c10d import CollectiveRecorder
    from graphguard.recorders.cupy_nccl import CupyRecorder
    from graphguard.signature import CollectiveCall

MAX_DISAGREEMENTS = 16
"""How many a signature keeps; the rest is counted."""

_ALONE = Process(0, 1)
# The first interface of NCCL's plugins that has events of API calls: NCCL 2.28.
_FIRST_WHOLE_INTERFACE = 5


class Taken(Protocol):
    """What a log held of one recording, as :class:`graphguard.recorders.nccl_log.Taken`."""

    @property
    def calls(self) -> Sequence[NcclCall]:
        """The calls, in order."""

    @property
    def dropped(self) -> int:
        """How many more there were than it had room for."""


class Log(Protocol):
    """A log of NCCL's calls, as :class:`graphguard.recorders.nccl_log.NcclLog`."""

    def begin(self, capture_id: int = 0) -> None:
        """Record the calls of a capture, or those of this thread."""

    def end(self, capture_id: int = 0) -> None:
        """Record them no longer."""

    def take(self, capture_id: int = 0) -> Taken:
        """Return what was recorded."""


def logs_of_this_process() -> dict[Source, Log]:
    """Return the logs of the libraries that are loaded."""
    from graphguard.recorders import nccl_interposer, nccl_plugin

    logs = {Source.PLUGIN: nccl_plugin.log(), Source.INTERPOSER: nccl_interposer.log()}
    return {source: log for source, log in logs.items() if log is not None}


def plugin_interface() -> int:
    """Return the version of NCCL's profiler interface by which the plugin is called, or 0."""
    from graphguard.recorders import nccl_plugin

    status = nccl_plugin.status()
    return 0 if status is None else status.interface


class Duty:
    """The recorders of one capture, on duty while it is entered.

    Args:
        capture_id: The capture, as the driver numbers it; 0 for the captures of this thread.
        find_logs: Which logs of NCCL's calls there are.
        find_interface: By which interface NCCL calls the plugin.

    Attributes:
        failure: The first error of a recorder itself, or None.
    """

    def __init__(
        self,
        capture_id: int = 0,
        *,
        find_logs: Callable[[], dict[Source, Log]] = logs_of_this_process,
        find_interface: Callable[[], int] = plugin_interface,
    ) -> None:
        self.failure: Exception | None = None
        self._capture_id = capture_id
        self._find_logs = find_logs
        self._find_interface = find_interface
        self._torch: CollectiveRecorder | None = None
        self._cupy: CupyRecorder | None = None
        self._logs: dict[Source, Log] = {}
        self._taken: dict[Source, Taken] = {}

    def __enter__(self) -> Duty:
        # Without torch there are no calls of torch.distributed to record.
        if "torch" in sys.modules:
            self._attempt(self._begin_torch)
        # It is loaded by what replaces cupy's class of communicators.
        if "graphguard.recorders.cupy_nccl" in sys.modules:
            self._attempt(self._begin_cupy)
        self._attempt(self._begin_logs)
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        if self._torch is not None:
            self._torch.__exit__(kind, error, traceback)
            self.failure = self.failure or self._torch.failure
        if self._cupy is not None:
            self._cupy.__exit__(kind, error, traceback)
            self.failure = self.failure or self._cupy.failure
        for source, log in self._logs.items():
            self._attempt(partial(self._end_log, source, log))

    def merged(self, find_process: Callable[[], tuple[int, int]]) -> Merged:
        """Return every call that was recorded, once.

        Args:
            find_process: Tells the global rank of this process and how many the job has. Asked
                only if there are calls of NCCL.
        """
        taken = dict(self._taken)
        if len(taken) == len(Source) and self._plugin_is_partial():
            del taken[Source.PLUGIN]
        merged = merge(
            self._called(taken),
            **{source.label: log.calls for source, log in taken.items()},
            process=Process(*find_process()) if any(t.calls for t in taken.values()) else _ALONE,
        )
        told = [*merged.disagreements]
        told += [
            f"the {source.label} had no room for {log.dropped} more calls"
            for source, log in taken.items()
            if log.dropped
        ]
        return merged._replace(disagreements=_bounded(told))

    def _called(self, taken: dict[Source, Taken]) -> Sequence[CollectiveCall]:
        """Return what programs called by names that are recorded in Python."""
        calls = [] if self._torch is None else self._torch.calls
        if self._cupy is None or any(log.calls for log in taken.values()):
            # What cupy calls is NCCL, whose own log has it with more of it.
            return calls
        return [*calls, *self._cupy.calls]

    def _plugin_is_partial(self) -> bool:
        """Whether NCCL tells the plugin less than the interposer sees, and not which calls."""
        return self._find_interface() < _FIRST_WHOLE_INTERFACE

    def _begin_torch(self) -> None:
        from graphguard.recorders.c10d import CollectiveRecorder

        self._torch = CollectiveRecorder().__enter__()

    def _begin_cupy(self) -> None:
        from graphguard.recorders.cupy_nccl import CupyRecorder

        self._cupy = CupyRecorder().__enter__()

    def _begin_logs(self) -> None:
        logs = self._find_logs()
        self._logs = {source: log for source, log in logs.items() if self._begins(source, log)}

    def _begins(self, source: Source, log: Log) -> bool:
        try:
            log.begin(self._capture_id)
        except GraphguardError as error:
            # A recording around this one has the calls, and this one does without.
            logger().warning("the %s does not record: %s", source.label, error.message)
            return False
        return True

    def _end_log(self, source: Source, log: Log) -> None:
        log.end(self._capture_id)
        self._taken[source] = log.take(self._capture_id)

    def _attempt(self, step: Callable[[], None]) -> None:
        try:
            step()
        except Exception as error:  # noqa: BLE001 - told at the end: the capture goes first
            self.failure = self.failure or error


def _bounded(told: list[str]) -> tuple[str, ...]:
    kept = told[:MAX_DISAGREEMENTS]
    if len(told) > MAX_DISAGREEMENTS:
        kept[-1] = f"and {len(told) - MAX_DISAGREEMENTS + 1} more disagreements"
    # A communicator's text may list thousands of ranks.
    return tuple(sentence[:1_000] for sentence in kept)
