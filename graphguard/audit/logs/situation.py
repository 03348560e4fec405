"""What happened, in which order: events sorted into causes, symptoms and what passed."""

from __future__ import annotations

from collections.abc import Sequence

from graphguard.audit.logs.collecting import Collected
from graphguard.audit.logs.events import Event

TIMEOUTS = ("rpc-timeout", "sglang-watchdog", "nccl-timeout", "nccl-stuck", "trt-hang")
"""With these an engine says that a step did not end."""

GAVE_UP = ("engine-fatal", "engine-dead", "nccl-fatal", "quit", "crashed", *TIMEOUTS)
DEATHS = ("worker-died", "oom-killed", "killed", "crashed")
RAISED = ("cuda-error", "out-of-memory", "worker-exception", "xid")
QUEUE = ("pycfunction",)

# Exceptions with which other processes tell of what one of them met.
_CONSEQUENCES = ("EngineDeadError", "TimeoutError", "CancelledError", "EngineGenerateError")
_PROCESSES = ("Worker", "VllmWorker", "RayWorker", "EngineCore")


class Situation:
    """What happened.

    Attributes:
        told: What the log told.
        progress: The lines in which steps ended.
        start_up: Warnings of the queue before the engine was ready, which then was.
        passed: Warnings of the queue while it served, after which steps ended again.
        idle: Those while no request was running, in a log in which nothing gave up.
        waiting: Those after which nothing ended, and throughput of 0 with requests running.
        raised: Exceptions of workers and errors of the device that nothing recovered from.
        deaths: Processes that ended.
        queue: Errors of the queue between the processes itself.
        timeouts: The engine's own words that a step did not end.
        fatal: The first line with which the engine gave up.
    """

    def __init__(self, told: Collected) -> None:
        self.told = told
        self.progress = told.of("progress")
        gave_up = [each for each in told.of(*GAVE_UP) if not _soft(each)]
        # The front end finds out last; a line of it that is earlier is of a summary.
        own = [each for each in gave_up if each.kind != "engine-dead"]
        self.fatal = next(iter(own or gave_up), None)
        self._since = self._line_of_last_progress()
        self.idle: list[Event] = []
        self.start_up, self.passed, self.waiting = self._sorted_warnings()
        # A report may quote the error of another one and say that it is not this one.
        self.queue = [] if told.of("not-the-queue") else self._lasting(told.of(*QUEUE))
        self.timeouts = [each for each in told.of(*TIMEOUTS) if not _soft(each)]
        self.raised = [] if self.queue else self._lasting([*told.of(*RAISED), *self._exceptions()])
        self.deaths = self._before_the_end(self._lasting(told.of(*DEATHS)))

    @property
    def causes(self) -> list[Event]:
        """What can be where it began, in order."""
        causes = [*self.queue, *self.raised, *self.deaths, *self.timeouts, *self.waiting]
        if not causes and self.fatal is not None:
            causes.append(self.fatal)
        return sorted(causes, key=lambda event: event.line.number)

    @property
    def last_healthy(self) -> Event | None:
        """The last line in which steps ended before the trouble began."""
        first = self.causes[0].line.number if self.causes else self.told.lines + 1
        return next((each for each in reversed(self.progress) if each.line.number < first), None)

    @property
    def hung(self) -> bool:
        """Whether a step did not end, and no process said why before that."""
        symptoms = [*self.timeouts, *self.waiting]
        if not symptoms:
            return False
        first = min(event.line.number for event in symptoms)
        told = [*self.queue, *self.raised]
        return not any(event.line.number < self._end(symptoms) for event in told) and not any(
            event.line.number < first for event in self.deaths
        )

    def _end(self, symptoms: Sequence[Event]) -> int:
        return self.fatal.line.number if self.fatal else max(e.line.number for e in symptoms)

    def _line_of_last_progress(self) -> int:
        end = self.fatal.line.number if self.fatal else self.told.lines + 1
        return max((e.line.number for e in self.progress if e.line.number < end), default=0)

    def _sorted_warnings(self) -> tuple[list[Event], list[Event], list[Event]]:
        ready = max((event.line.number for event in self.told.of("ready")), default=0)
        begun = min((event.line.number for event in self.progress), default=ready + 1)
        start_up, passed, waiting = [], [], []
        soft = filter(_soft, self.told.of("sglang-watchdog"))
        events = [*self.told.of("waiting", "no-progress"), *soft]
        for event in sorted(events, key=lambda event: event.line.number):
            number = event.line.number
            if self.fatal is not None and number > self.fatal.line.number:
                continue
            if number < ready and number < begun:
                start_up.append(event)
            elif number < self._since:
                passed.append(event)
            elif self._idle_before(number):
                self.idle.append(event)
            else:
                waiting.append(event)
        return start_up, [e for e in passed if e.kind != "no-progress"], waiting

    def _idle_before(self, number: int) -> bool:
        """Return whether no request was running when the queue was waited for.

        Older workers warn of that too: they wait for work.
        """
        if self.fatal is not None:
            return False
        states = self.told.of("progress", "idle", "no-progress")
        last = [state for state in states if state.line.number < number][-1:]
        return bool(last) and last[0].kind == "idle"

    def _lasting(self, events: Sequence[Event]) -> list[Event]:
        """Return those after which the engine did not go on.

        The throughput of the last seconds may still be printed once after its end.
        """
        lines = [event.line.number for event in self.progress]
        ready = max((event.line.number for event in self.told.of("ready")), default=0)
        lasting = []
        for event in sorted(events, key=lambda event: event.line.number):
            after = sum(1 for line in lines if line > event.line.number)
            if after < 2 and (self.fatal is not None or not (after or ready > event.line.number)):
                lasting.append(event)
        return lasting

    def _exceptions(self) -> list[Event]:
        """Return exceptions that a worker printed; those of requests are not trouble."""
        return [
            event
            for event in self.told.of("exception")
            if event.line.process.startswith(_PROCESSES)
            and event.values["name"].rpartition(".")[2] not in _CONSEQUENCES
            and event.values.get("what") not in ("cancelled", "Executor failed.")
            and event.line.level not in ("WARNING", "INFO", "DEBUG")
        ]

    def _before_the_end(self, events: Sequence[Event]) -> list[Event]:
        """Return deaths that are no consequence of the end, in which processes are ended too."""
        ends = [
            event.line.number
            for event in self.told.of(*GAVE_UP, "ended")
            if event.kind != "crashed"
        ]
        end = min(ends, default=self.told.lines + 1)
        return [event for event in events if event.line.number < end]


def _soft(event: Event) -> bool:
    """Return whether a watchdog ran out that only warns (SGLang's ``--soft-watchdog-timeout``)."""
    return event.values.get("soft") == "True"
