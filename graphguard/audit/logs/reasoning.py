"""Which classes of cause the evidence of a log supports, which it excludes, and what stays open.

Each rule looks at what the lines say, and names them. A class is supported directly where lines say
so, and is only *consistent* where what it needs is there; nothing else is called supported.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from typing import NamedTuple

from graphguard.audit.logs import ranks, stacks
from graphguard.audit.logs.collecting import quote, quotes
from graphguard.audit.logs.model import Cause, Evidence, Reading, Step, Strength
from graphguard.audit.logs.situation import Situation
from graphguard.audit.logs.step import draft_tokens

DIRECT, CONSISTENT = Strength.DIRECT, Strength.CONSISTENT


class Readings(NamedTuple):
    """What was found about the classes, each class in at most one of them."""

    supported: tuple[Reading, ...]
    excluded: tuple[Reading, ...]
    undecided: tuple[Reading, ...]


def reason(situation: Situation, step: Step | None) -> Readings:
    """Return what the evidence supports and excludes."""
    supported = list(_supported(situation, step))
    named = {reading.cause for reading in supported}
    excluded = _first_of_each(r for r in _excluded(situation, step, named) if r.cause not in named)
    named |= {reading.cause for reading in excluded}
    undecided = [r for r in _undecided(situation, step) if r.cause not in named]
    supported.sort(key=lambda reading: reading.strength is not DIRECT)
    return Readings(tuple(supported), tuple(excluded), tuple(undecided))


def _first_of_each(readings: Iterable[Reading]) -> list[Reading]:
    by_cause: dict[Cause, Reading] = {}
    for reading in readings:
        by_cause.setdefault(reading.cause, reading)
    return list(by_cause.values())


def wrong_phase(situation: Situation, step: Step | None) -> bool:
    """Return whether a prefill has exactly the shape that decode graphs are chosen by."""
    if step is None or step.phase not in ("prefill", "mixed") or not step.uniform:
        return False
    extra = draft_tokens(situation.told.dump, situation.told.configuration)
    mode = situation.told.configuration.settings.get("cudagraph_mode")
    full = mode is None or mode.value in ("FULL", "FULL_DECODE_ONLY", "FULL_AND_PIECEWISE")
    return bool(extra) and full and step.query_len == 1 + (extra or 0)


def _support(cause: Cause, strength: Strength, why: str, *evidence: Evidence) -> Reading:
    return Reading(cause=cause, why=why, evidence=evidence, strength=strength)


def _supported(situation: Situation, step: Step | None) -> Iterator[Reading]:
    if situation.queue:
        why = (
            "CPython lost a method descriptor in the queue between the processes; the worker that "
            "raises this is gone, and what follows is a consequence"
        )
        yield _support(Cause.MESSAGE_QUEUE, DIRECT, why, *quotes(situation.queue))
    if situation.raised:
        first = situation.raised[0]
        who = f" in {first.line.process}" if first.line.process else ""
        why = f"an error was raised{who} before the engine gave up"
        yield _support(Cause.WORKER_ERROR, DIRECT, why, *quotes(situation.raised))
    elif situation.deaths and not situation.queue:
        why = "a process ended, and no line says that it raised before"
        yield _support(Cause.PROCESS_DIED, DIRECT, why, *quotes(situation.deaths))
    if situation.hung:
        yield _stall(situation)
        yield from _of_hang(situation, step)
    if situation.passed and not situation.causes:
        why = "the queue between the processes was waited for, and steps ended again afterwards"
        yield _support(Cause.SLOW, DIRECT, why, *quotes(situation.passed))
    if not situation.causes and (
        ended := [*situation.progress, *situation.told.of("ready", "idle")]
    ):
        last = max(ended, key=lambda event: event.line.number)
        why = "steps ended up to the last lines, and no line tells of trouble that did not pass"
        if not situation.passed:
            yield _support(Cause.HEALTHY, DIRECT, why, quote(last.line))


def _stall(situation: Situation) -> Reading:
    if situation.timeouts:
        why = "a step did not end in time, and no process had said why"
        return _support(Cause.STALL, DIRECT, why, *quotes(situation.timeouts))
    if situation.fatal is not None:
        why = "the engine gave up while a step had not ended, and no process had said why"
        return _support(Cause.STALL, DIRECT, why, *quotes([*situation.waiting, situation.fatal]))
    why = "the log ends while a step had not ended"
    return _support(Cause.STALL, DIRECT, why, *quotes(situation.waiting))


def _of_hang(situation: Situation, step: Step | None) -> Iterator[Reading]:
    """Yield what is behind a step that did not end, as far as the log tells."""
    if wrong_phase(situation, step) and step is not None:
        why = (
            f"requests that are not past their prompt have {step.query_len} tokens each, by which "
            "vLLM's V1 runner chooses the FULL graph that verifies drafts (#49918, #53051)"
        )
        yield _support(Cause.SHAPE, CONSISTENT, why, *step.evidence)
    if step is not None and step.padded_slots:
        why = (
            f"{step.words[1]}; kernels that trip over what padded slots hold have hung so "
            "(#51593). The log does not say that this one did"
        )
        yield _support(Cause.PADDING, CONSISTENT, why, *step.evidence)
    if (different := ranks.different(situation.told)) is not None:
        yield _support(Cause.RANK, DIRECT, different.why, *different.evidence)
    if (host := stacks.on_host(situation.told)) is not None:
        yield _support(Cause.HOST_STUCK, CONSISTENT, host.why, *host.evidence)


def _excluded(situation: Situation, step: Step | None, named: set[Cause]) -> Iterator[Reading]:
    if situation.hung:
        yield from _excluded_by_hang(situation)
    elif named & {Cause.MESSAGE_QUEUE, Cause.WORKER_ERROR, Cause.PROCESS_DIED}:
        first = situation.causes[0]
        after = [*situation.timeouts, *situation.waiting]
        why = "the error came first; that others waited for the process is a consequence"
        yield Reading(cause=Cause.STALL, why=why, evidence=quotes([first, *after[:3]]))
    if situation.hung or Cause.WORKER_ERROR in named:
        yield from _excluded_without_graphs(situation)
        if step is not None:
            yield from _excluded_by_step(step, situation)
    if situation.causes:
        evidence = quotes(situation.causes[-1:])
        why = "it did not pass: no step ended after this"
        yield Reading(cause=Cause.SLOW, why=why, evidence=evidence)
        yield Reading(
            cause=Cause.HEALTHY, why="there is trouble that did not pass", evidence=evidence
        )
    elif situation.progress or situation.passed:
        last = quotes(situation.progress[-1:])
        yield Reading(cause=Cause.STALL, why="steps ended to the end of the log", evidence=last)


def _excluded_by_hang(situation: Situation) -> Iterator[Reading]:
    symptoms = quotes([*situation.waiting[:2], *situation.timeouts[:1]])
    told = situation.told
    # A traceback that is cut off still ends in the queue's wait for an answer.
    timed_out = situation.timeouts or (situation.fatal and "acquire_read" in told.frames)
    if told.configuration.engine == "vllm" and timed_out and not situation.deaths:
        why = (
            "the executor watches its workers and logs one that dies at once; in these lines it "
            "waited for an answer to the end"
        )
        yield Reading(cause=Cause.PROCESS_DIED, why=why, evidence=symptoms)
        why = "a worker that raises logs it; in these lines none did before the time was up"
        yield Reading(cause=Cause.WORKER_ERROR, why=why, evidence=symptoms)
        said = [quote(event.line) for event in told.of("not-the-queue")]
        frames = [quote(line) for name, line in told.frames.items() if name != "memory_fence"]
        why = (
            "the queue was waited on and is not broken: no SystemError, and memory_fence is not on "
            "the stack (#35104 shows both)"
        )
        if "memory_fence" not in told.frames:
            yield Reading(
                cause=Cause.MESSAGE_QUEUE, why=why, evidence=(*said, *frames[:4]) or symptoms
            )
    if (same := ranks.same(told)) is not None:
        yield Reading(cause=Cause.RANK, why=same.why, evidence=same.evidence)
    if (device := stacks.on_device(told)) is not None:
        yield Reading(cause=Cause.HOST_STUCK, why=device.why, evidence=device.evidence)


def _excluded_without_graphs(situation: Situation) -> Iterator[Reading]:
    mode = situation.told.configuration.settings.get("cudagraph_mode")
    if mode is None or mode.value != "NONE" or situation.told.of("capturing"):
        return
    evidence = (Evidence(mode.line, f"cudagraph_mode {mode.value}"),)
    for cause in (Cause.SHAPE, Cause.PADDING):
        yield Reading(cause=cause, why="the engine ran without graphs", evidence=evidence)


def _excluded_by_step(step: Step, situation: Situation) -> Iterator[Reading]:
    extra = draft_tokens(situation.told.dump, situation.told.configuration)
    if (
        step.uniform
        and step.phase == "decode"
        and extra is not None
        and step.query_len == 1 + extra
    ):
        why = (
            f"{step.words[0]}: an ordinary decode step with 1 + {extra} query tokens of each "
            "request, which is what the decode graphs were captured for"
        )
        yield Reading(cause=Cause.SHAPE, why=why, evidence=step.evidence)
    if step.padded_slots == 0 and step.words[1:]:
        yield Reading(cause=Cause.PADDING, why=step.words[1], evidence=step.evidence)
        if step.graph_tokens is None:
            yield Reading(cause=Cause.SHAPE, why=step.words[1], evidence=step.evidence)


def _undecided(situation: Situation, step: Step | None) -> Iterator[Reading]:
    """Yield what fits a step that does not end and that this log cannot tell apart."""
    if not situation.hung:
        explained = situation.queue or situation.raised or situation.deaths
        if situation.fatal is not None and not explained:
            why = "the engine gave up, and the lines before it do not say why"
            for cause in (Cause.STALL, Cause.WORKER_ERROR, Cause.PROCESS_DIED):
                yield Reading(cause=cause, why=why, evidence=quotes([situation.fatal]))
        return
    symptoms = quotes([*situation.waiting[:1], *situation.timeouts[:1]])
    known = step.evidence if step is not None else ()
    why = "the dump does not tell enough of the step, or of the captured sizes"
    yield Reading(cause=Cause.PADDING, why=why, evidence=known or symptoms)
    why = (
        "no dump tells what the step was" if not known else "the dump does not tell the whole step"
    )
    yield Reading(cause=Cause.SHAPE, why=why, evidence=known or symptoms)
    why = "the log does not say what each rank launched; manifests, black boxes or stacks would"
    yield Reading(cause=Cause.RANK, why=why, evidence=symptoms)
    why = "no stack tells where the processes were"
    yield Reading(cause=Cause.HOST_STUCK, why=why, evidence=symptoms)
