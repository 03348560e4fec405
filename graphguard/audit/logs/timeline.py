"""The course of a log in a few lines: start, last healthy step, first warning, cause, end."""

from __future__ import annotations

from graphguard.audit.logs.collecting import quote
from graphguard.audit.logs.events import Event
from graphguard.audit.logs.model import FirstCause, Moment
from graphguard.audit.logs.situation import Situation

_WORDS = {
    "rpc-timeout": "the executor gave up waiting",
    "worker-died": "a process died",
    "oom-killed": "the kernel killed a process for memory",
    "killed": "a process was killed",
    "crashed": "a process crashed",
    "cuda-error": "CUDA error",
    "out-of-memory": "out of GPU memory",
    "xid": "the driver reported an Xid",
    "worker-exception": "a worker raised",
    "exception": "a worker raised",
    "pycfunction": "the queue between the processes broke",
    "nccl-timeout": "NCCL's watchdog: a collective did not end",
    "nccl-stuck": "NCCL's watchdog was stuck itself",
    "nccl-fatal": "NCCL's watchdog ended the process",
    "sglang-watchdog": "the scheduler's watchdog ran out",
    "quit": "a child told the server to quit",
    "trt-hang": "the executor's hang detector ran out",
    "engine-fatal": "the engine gave up",
    "engine-dead": "the front end found the engine dead",
    "waiting": "the queue between the processes was waited for",
    "no-progress": "requests were running, and no token came",
}


def timeline(situation: Situation) -> tuple[Moment, ...]:
    """Return the moments that matter, in the order of the log."""
    told = situation.told
    moments: list[Moment] = []

    def add(event: Event | None, what: str) -> None:
        if event is not None:
            moments.append(moment(event, what))

    add(next(iter(told.of("start")), None), "the engine started")
    add(next(iter(told.of("ready")), None), "the engine was ready")
    for events, when in (
        (situation.start_up, "during start-up"),
        (situation.passed, "and it passed"),
    ):
        add(next(iter(events), None), f"the queue between the processes was waited for, {when}")
    add(situation.last_healthy, "last healthy step that the log shows")
    waiting = [event for event in situation.waiting if event.kind == "waiting"]
    add(
        next((e for e in situation.waiting if e.kind == "no-progress"), None), _WORDS["no-progress"]
    )
    add(next(iter(waiting), None), f"first warning{_of_so_many(waiting)}")
    add(waiting[-1] if len(waiting) > 1 else None, "last warning")
    for events in (situation.queue, situation.raised, situation.deaths, situation.timeouts):
        for event in events[:3]:
            add(event, _WORDS[event.kind])
    add(situation.fatal, _WORDS[situation.fatal.kind] if situation.fatal else "")
    add(next(iter(told.of("engine-dead")), None), _WORDS["engine-dead"])
    once = {(each.line, each.what): each for each in moments}
    return tuple(sorted(once.values(), key=lambda each: each.line))


def fatal(situation: Situation) -> Moment | None:
    """Return the line with which the engine gave up."""
    if situation.fatal is None:
        return None
    return moment(situation.fatal, _WORDS[situation.fatal.kind])


def first_cause(situation: Situation) -> FirstCause | None:
    """Return the earliest line of trouble that did not pass."""
    if not situation.causes:
        return None
    event = situation.causes[0]
    return FirstCause(
        _WORDS[event.kind],
        event.line.number,
        event.line.time,
        quote(event.line).text,
        event.line.process,
    )


def moment(event: Event, what: str) -> Moment:
    """Return an event as an entry of the timeline."""
    return Moment(what, event.line.number, event.line.time, quote(event.line).text)


def _of_so_many(waiting: list[Event]) -> str:
    if len(waiting) < 2:
        return ""
    return f" of {len(waiting)}, each after {waiting[0].values['seconds']} s"
