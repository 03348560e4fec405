"""The rules by which a stall gets its class. The first that applies decides."""

from __future__ import annotations

from collections.abc import Callable, Collection

import msgspec

from graphguard.watch.stack_traces.wait_frames import Wait, program_frame
from graphguard.watch.verdicts.case import Case, majority
from graphguard.watch.verdicts.stall import Evidence, StallClass
from graphguard.watch.verdicts.stall_words import doing, in_step, launch_words
from graphguard.watch.verdicts.standing import Standing


class Finding(msgspec.Struct, frozen=True):
    """What a rule found.

    Attributes:
        stall_class: The class.
        ranks: Those that it is about, ascending.
        sentence: In words.
        evidence: What only this rule has looked at.
    """

    stall_class: StallClass
    ranks: tuple[int, ...]
    sentence: str
    evidence: tuple[Evidence, ...] = ()

    def without(self, ranks: Collection[int]) -> Finding:
        """Return the same about fewer ranks."""
        left = tuple(rank for rank in self.ranks if rank not in ranks)
        return msgspec.structs.replace(self, ranks=left)


def find(case: Case) -> Finding:
    """Return what the first rule finds that applies."""
    for rule in _RULES:
        finding = rule(case)
        if finding is not None:
            return finding
    return _unknown(case)


def _died(case: Case) -> Finding | None:
    dead = [each for each in case.standings if each.gone and _left_others(each, case)]
    if not dead:
        return None
    ranks = tuple(each.rank for each in dead)
    told = [
        f"the process of rank {each.rank} (pid {each.state.pid}) "
        + ("ended by itself" if each.state.closed else _how_gone(each))
        for each in dead
    ]
    evidence = tuple(
        Evidence(
            f"process {each.state.pid} is {each.state.process.state}",
            f"/proc/{each.state.pid} and the lock of {each.state.ring}",
        )
        for each in dead
    )
    return Finding(
        StallClass.PROCESS_DIED, ranks, "; ".join(told) + _others_wait(case, ranks), evidence
    )


def _how_gone(standing: Standing) -> str:
    left = "is a zombie" if standing.state.process.state == "zombie" else "is gone"
    return f"{left}, without a word"


def _left_others(standing: Standing, case: Case) -> bool:
    """Whether a process that is gone is missed; one that had done its part is not."""
    if any(each.state.started_ns > _newest_ns(standing) for each in case.alive):
        # A ring that an earlier run has left behind.
        return False
    return not standing.state.closed or case.late(standing)


def _newest_ns(standing: Standing) -> int:
    state = standing.state
    return max([state.started_ns, *(last.time_ns for last in state.last.values())])


def _stopped(case: Case) -> Finding | None:
    stopped = [each for each in case.standings if each.stopped]
    if not stopped:
        return None
    ranks = tuple(each.rank for each in stopped)
    told, evidence = [], []
    for each in stopped:
        state = each.state
        beat = state.pulse.beat_age_ns if state.pulse is not None else None
        since = f", and its watchdog has not beaten for {beat / 1e9:.1f} s" if beat else ""
        if each.frozen and state.process.state != "stopped":
            told.append(f"rank {each.rank} (pid {state.pid}) is not let run: frozen, or starved")
            evidence.append(Evidence(f"none of its threads ran{since}", f"/proc/{state.pid}/task"))
        else:
            told.append(f"rank {each.rank} (pid {state.pid}) is stopped")
            evidence.append(Evidence(f"state T{since}", f"/proc/{state.pid}/stat"))
    sentence = "; ".join(told) + _others_wait(case, ranks)
    return Finding(StallClass.STOPPED, ranks, sentence, tuple(evidence))


def _worker_error(case: Case) -> Finding | None:
    # A launch that an error has left counts as under way for ever, and an engine may have ended the
    # process of that rank by now.
    failed = [
        each
        for each in case.standings
        if each.state.note and not each.stopped and each.seen.wait not in (Wait.PEERS, Wait.DEVICE)
    ]
    if not failed or not any(each not in failed for each in case.waiting):
        return None
    ranks = tuple(each.rank for each in failed)
    told = "; ".join(f"rank {each.rank} noted: {each.state.note}" for each in failed)
    evidence = tuple(Evidence(each.state.note, each.state.ring) for each in failed)
    return Finding(StallClass.WORKER_ERROR, ranks, told + _others_wait(case, ranks), evidence)


def _never_launched(case: Case) -> Finding | None:
    """A rank has not launched the step that others wait in, and is in no wait for them."""
    late = [each for each in case.alive if each in case.members and case.late(each)]
    late = [each for each in late if not (each.in_launch and each.seen.wait is not Wait.HOST)]
    late = [
        each
        for each in late
        if each.seen.wait not in (Wait.PEERS, Wait.DEVICE) and not (each.moves and not each.stuck)
    ]
    if not late or not any(each.waits and each not in late for each in case.members):
        return None
    ranks = tuple(each.rank for each in late)
    told = f"{case.subject(ranks, 'has', 'have')} not launched {in_step(case)}"
    sentence = f"{told}{_where(late)}{_others_wait(case, ranks)}"
    return Finding(StallClass.HOST_STUCK, ranks, sentence)


def _in_own_code(case: Case) -> Finding | None:
    """A rank is in a step, and its thread waits for nobody."""
    own = [
        each
        for each in case.waiting
        if each.seen.wait is Wait.HOST and not each.moves and not _ahead(each, case)
    ]
    # One that sleeps may do so because of one that does not.
    own = [each for each in own if not each.sleeps] or own
    places = {each.seen.where for each in own}
    if not own or (len(own) > 1 and len(own) == len(case.members) and len(places) == 1):
        return None
    ranks = tuple(each.rank for each in own)
    sentence = (
        f"{case.subject(ranks)} in a step, and not in a wait for other ranks or for a device"
        f"{_where(own)}"
    )
    return Finding(StallClass.HOST_STUCK, ranks, sentence + _others_wait(case, ranks))


def _diverged(case: Case) -> Finding | None:
    return (
        _launched_differently(case)
        or _finished_by_some(case)
        or _left_the_step(case)
        or _called_differently(case)
    )


def _launched_differently(case: Case) -> Finding | None:
    """Ranks are in launches of different steps, or of one step and not alike."""
    keys: dict[int, tuple[int, str, int]] = {}
    for each in case.members:
        place = case.place(each)
        if place is None or each.gone or each.stopped:
            continue
        if place.in_flight or (place.launched == case.step and place.what):
            keys[each.rank] = (place.launched, place.what, place.digest)
    if len(set(keys.values())) < 2 or not case.waiting:
        return None
    most = majority(list(keys.values()))
    odd = tuple(sorted(rank for rank, key in keys.items() if most is not None and key != most))
    told = "; ".join(f"{doing(each, case)}" for each in case.members if each.rank in keys)
    return Finding(StallClass.RANKS_DIVERGED, odd, f"ranks launched different things: {told}")


def _finished_by_some(case: Case) -> Finding | None:
    """Some have finished the launch in which others wait for ranks."""
    waits, finished = [], []
    for each in case.members:
        place = case.place(each)
        if place is None or not place.numbered or not case.step:
            continue
        if each.waits and place.in_flight and each.seen.wait is not Wait.DEVICE:
            waits.append(each)
        elif not place.in_flight and place.launched >= case.step and not _for_device(each):
            finished.append(each)
    if not waits or not finished:
        return None
    odd = finished if len(finished) < len(waits) else []
    who = case.subject([each.rank for each in finished], "has", "have")
    others = case.subject([each.rank for each in waits], "is", "are")
    sentence = (
        f"{who} finished {in_step(case)}, and {others} still in it ({launch_words(case)}): "
        "what they call in it differs"
    )
    return Finding(StallClass.RANKS_DIVERGED, tuple(each.rank for each in odd), sentence)


def _left_the_step(case: Case) -> Finding | None:
    """All have finished the same launch; some are in no step any more, and others wait in it."""
    waits, idle = [], []
    for each in case.members:
        place, pulse = case.place(each), each.state.pulse
        if place is None or not place.numbered or not case.step or pulse is None or each.moves:
            return None
        if place.in_flight or place.launched != case.step:
            return None
        if not pulse.activities:
            idle.append(each)
        elif each.waits and each.seen.wait is Wait.PEERS:
            waits.append(each)
        else:
            return None
    if not waits or not idle:
        return None
    odd = idle if len(idle) < len(waits) else []
    who = case.subject([each.rank for each in idle])
    others = case.subject([each.rank for each in waits], "waits", "wait")
    sentence = (
        f"all ranks have finished {in_step(case)}; {who} in no step any more, and {others} for "
        f"other ranks{_where(waits)}: what they call differs"
    )
    return Finding(StallClass.RANKS_DIVERGED, tuple(each.rank for each in odd), sentence)


def _called_differently(case: Case) -> Finding | None:
    """All are in one launch, wait for each other, and were called from different places."""
    calls: dict[int, str] = {}
    for each in case.members:
        frame = program_frame(each.stack.frames) if each.stack is not None else None
        if not each.waits or each.seen.wait is not Wait.PEERS or frame is None:
            return None
        calls[each.rank] = each.seen.where
    if len(set(calls.values())) < 2:
        return None
    most = majority(list(calls.values()))
    odd = tuple(sorted(rank for rank, call in calls.items() if most is not None and call != most))
    told = "; ".join(f"rank {rank} waits in {call}" for rank, call in sorted(calls.items()))
    return Finding(StallClass.RANKS_DIVERGED, odd, f"ranks wait for each other: {told}")


def _device(case: Case) -> Finding | None:
    """All have launched the same, and it does not end."""
    waiting = case.waiting
    if not waiting or not case.complete or any(each.gone for each in case.members):
        return None
    alone = len(case.members or case.standings) == 1
    if any(each.moves or not _launched_all(each, case) for each in case.members):
        return None
    if not any(_for_device(each) or (each.in_launch and not alone) for each in waiting):
        return None
    if any(each.seen.wait is Wait.HOST for each in waiting):
        return None
    who = case.subject([each.rank for each in case.members or waiting], "has", "have")
    sentence = f"{who} launched the same ({launch_words(case)}), and it does not end"
    return Finding(StallClass.DEVICE, (), sentence)


def _launched_all(standing: Standing, case: Case) -> bool:
    place = case.place(standing)
    if place is None or not case.step:
        return standing.waits
    return place.launched >= case.step


def _unknown(case: Case) -> Finding:
    waiting = case.waiting
    if not waiting:
        return Finding(StallClass.UNKNOWN, (), "nothing is under way any more")
    told = "; ".join(doing(each, case) for each in case.standings)
    return Finding(StallClass.UNKNOWN, (), f"what holds it up is not known: {told}")


def _ahead(standing: Standing, case: Case) -> bool:
    place = case.place(standing)
    return bool(case.step) and place is not None and place.launched > case.step


def _for_device(standing: Standing) -> bool:
    if standing.seen.wait is Wait.DEVICE:
        return True
    outputs = any(activity.kind == "output" for activity in standing.stuck)
    return outputs and standing.seen.wait in (Wait.NOT_TOLD, Wait.LIBRARY)


def _where(standings: Collection[Standing]) -> str:
    told = [
        f"rank {each.rank} is in {each.seen.where}" if len(standings) > 1 else each.seen.where
        for each in standings
        if each.seen.where
    ]
    if not told:
        return ""
    return f": it is in {told[0]}" if len(standings) == 1 else f": {'; '.join(told)}"


def _others_wait(case: Case, ranks: Collection[int]) -> str:
    others = [each.rank for each in case.waiting if each.rank not in ranks]
    if not others:
        return ""
    return f"; {case.subject(others, 'waits', 'wait')} in {launch_words(case)}"


_RULES: tuple[Callable[[Case], Finding | None], ...] = (
    _died,
    _stopped,
    _worker_error,
    _never_launched,
    _in_own_code,
    _diverged,
    _device,
)
