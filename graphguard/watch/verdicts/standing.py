"""Where each rank stands, from two looks at it and its stack."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import msgspec

from graphguard.blackbox.pulse import Activity
from graphguard.watch.looking.ranks import RankState
from graphguard.watch.looking.recent import LastOf
from graphguard.watch.stack_traces.stack_model import ProcessStacks, ThreadStack
from graphguard.watch.stack_traces.wait_frames import Seen, Wait, seen_in

LAUNCHES = frozenset({"replay", "eager"})
"""Kinds of activities that are launches, with a step of their group."""

FREEZER = frozenset({"do_freezer_trap", "__refrigerator"})
"""Where the kernel holds threads of a process that is frozen."""

TIMED_SLEEPS = frozenset({"hrtimer_nanosleep", "do_nanosleep", "common_nsleep", "clock_nanosleep"})
"""Where the kernel holds a thread that sleeps for a time, and for nothing else."""

IDLE_SHARE = 0.2
"""A thread that uses less of the time than this sleeps in its wait."""

FROZEN_NS = 2_000_000_000
"""A watchdog beats ten times a second. One that has not for so long is not let run."""


class Standing(msgspec.Struct, frozen=True):
    """What one rank is at.

    Attributes:
        state: As it was seen last.
        stuck: What has been under way since the first look, oldest first.
        moves: Whether something began or ended between the looks.
        seen: What the stack of the thread tells that is in the oldest of these activities; of the
            main thread if there is none.
        stack: That stack, if there is one.
        stacks_problem: Why there is none.
        sleeps: Whether that thread waits for something that is not just a time.
        used_ns: Processor time that the thread used between the looks.
        all_used_ns: What all threads of the process used.
        between_ns: How long that was.
    """

    state: RankState
    stuck: tuple[Activity, ...]
    moves: bool
    seen: Seen
    stack: ThreadStack | None
    stacks_problem: str
    sleeps: bool
    used_ns: int
    all_used_ns: int
    between_ns: int

    @property
    def rank(self) -> int:
        """Its number."""
        return self.state.rank

    @property
    def gone(self) -> bool:
        """Whether its process is no more."""
        return not self.state.process.alive

    @property
    def stopped(self) -> bool:
        """Whether its process is not let run."""
        return self.state.process.state == "stopped" or self.frozen

    @property
    def frozen(self) -> bool:
        """Whether a freezer holds it, or it does not even beat though it waits for nothing."""
        process, pulse = self.state.process, self.state.pulse
        if not process.alive or process.state in ("disk", "elsewhere"):
            return False
        if process.threads and all(each.waits_in in FREEZER for each in process.threads):
            return True
        silent = pulse is not None and (pulse.beat_age_ns or 0) > FROZEN_NS
        return silent and not self.state.closed and self.between_ns > 0 and self.all_used_ns == 0

    @property
    def waits(self) -> bool:
        """Whether it is in something that does not end, and waits there, or may."""
        return bool(self.stuck) and not self.gone and not self.stopped

    @property
    def activity(self) -> Activity | None:
        """What tells most of where it is: a launch, or else what began last on its thread."""
        if not self.stuck:
            return None
        launches = [each for each in self.stuck if each.kind in LAUNCHES]
        first = self.stuck[0]
        return (launches or [each for each in self.stuck if each.thread == first.thread])[-1]

    @property
    def thread(self) -> int:
        """The thread that should get on."""
        return self.stuck[0].thread if self.stuck else self.state.pid

    @property
    def thread_state(self) -> str:
        """What the kernel says that this thread does; empty if it says nothing."""
        threads = self.state.process.threads
        return next((each.state for each in threads if each.tid == self.thread), "")

    @property
    def may_work(self) -> bool:
        """Whether it is in something, and is not seen to wait there."""
        return self.waits and self.seen.wait in (Wait.HOST, Wait.LIBRARY, Wait.NOT_TOLD)

    @property
    def in_launch(self) -> bool:
        """Whether its thread is in a launch."""
        return any(each.kind in LAUNCHES for each in self.stuck)


def standings(
    before: Sequence[RankState],
    after: Sequence[RankState],
    stacks: Mapping[int, ProcessStacks],
    on_cuda: frozenset[int] = frozenset(),
) -> tuple[Standing, ...]:
    """Return where each rank stands, in the order of ranks."""
    earlier = {(state.rank, state.pid, state.host): state for state in before}
    found = [
        _standing(
            earlier.get((state.rank, state.pid, state.host)),
            state,
            stacks.get(state.pid),
            state.pid in on_cuda,
        )
        for state in after
    ]
    return tuple(sorted(found, key=lambda each: (each.rank, each.state.host, each.state.pid)))


def same_activity(earlier: Activity, later: Activity) -> bool:
    """Whether two looks saw one activity."""
    return (
        (earlier.kind, earlier.name, earlier.group, earlier.step, earlier.digest, earlier.thread)
        == (later.kind, later.name, later.group, later.step, later.digest, later.thread)
    ) and later.age_ns >= earlier.age_ns


def _standing(
    before: RankState | None, after: RankState, stacks: ProcessStacks | None, on_cuda: bool
) -> Standing:
    then = before.pulse.activities if before is not None and before.pulse is not None else ()
    now = after.pulse.activities if after.pulse is not None else ()
    # One look alone tells what is under way, and not that it stays so.
    stuck = (
        now
        if before is None
        else tuple(each for each in now if any(same_activity(one, each) for one in then))
    )
    ended = [state.pulse.ended for state in (before, after) if state and state.pulse]
    moves = (len(ended) == 2 and ended[0] != ended[1]) or len(stuck) != len(now)
    thread = stuck[0].thread if stuck else after.pid
    stack = _stack_of(stacks, thread)
    used = _used(before, after)
    between_ns = 0 if before is None else max(0, after.looked_ns - before.looked_ns)
    sleeps = _sleeps(before, after, thread, used.get(thread, 0), between_ns)
    return Standing(
        state=after,
        stuck=stuck,
        moves=moves,
        seen=_seen(stack, on_cuda, sleeps),
        stack=stack,
        stacks_problem=_problem(stacks, stack),
        sleeps=sleeps,
        used_ns=used.get(thread, 0),
        all_used_ns=sum(used.values()),
        between_ns=between_ns,
    )


def _seen(stack: ThreadStack | None, on_cuda: bool, sleeps: bool) -> Seen:
    if stack is None:
        return Seen(Wait.NOT_TOLD, "")
    seen = seen_in(stack.frames)
    # What Python calls is not on a stack of Python alone: it may wait for a device or for peers.
    if seen.wait is Wait.HOST and (on_cuda or sleeps) and not has_native(stack):
        return Seen(Wait.LIBRARY, seen.where)
    return seen


def has_native(stack: ThreadStack) -> bool:
    """Return whether compiled code is on a stack, as far as it was looked for."""
    return any(frame.native for frame in stack.frames)


def _sleeps(
    before: RankState | None, after: RankState, tid: int, used_ns: int, between_ns: int
) -> bool:
    """Whether a thread waits for something that is not just a time."""
    seen = [
        thread
        for state in (before, after)
        if state is not None
        for thread in state.process.threads
        if thread.tid == tid
    ]
    if any(thread.waits_in in TIMED_SLEEPS for thread in seen):
        return False
    # Seen awake once, it may just have been asked for its stack. One that computes is so twice.
    sleeping = any(thread.state == "sleeping" for thread in seen)
    return sleeping and used_ns <= IDLE_SHARE * between_ns


def _used(before: RankState | None, after: RankState) -> dict[int, int]:
    """Return what each thread has used between two looks, in nanoseconds."""
    if before is None:
        return {}
    then = {thread.tid: thread.cpu_ns for thread in before.process.threads}
    return {
        thread.tid: max(0, thread.cpu_ns - then.get(thread.tid, thread.cpu_ns))
        for thread in after.process.threads
    }


def _stack_of(stacks: ProcessStacks | None, tid: int) -> ThreadStack | None:
    if stacks is None:
        return None
    found = next((thread for thread in stacks.threads if thread.tid == tid and tid), None)
    return found or stacks.main


def _problem(stacks: ProcessStacks | None, stack: ThreadStack | None) -> str:
    if stacks is None:
        return "they were not taken"
    if stack is None or not stack.frames:
        return stacks.problem or "the thread is not among them"
    return ""


class Place(msgspec.Struct, frozen=True):
    """Where a rank is in the steps of a group.

    Attributes:
        launched: The last step that it has launched; 0 if none, or if steps are not numbered.
        decided: The last step that it has decided on.
        in_flight: Whether it is in the launch of that step.
        what: What it launched: role, batch, and how.
        digest: Of what it launched.
        numbered: Whether its steps are numbered.
    """

    launched: int
    decided: int
    in_flight: bool
    what: str
    digest: int
    numbered: bool


def place_in(standing: Standing, group: str) -> Place | None:
    """Return where a rank is in a group; None if it has done nothing in it."""
    last = standing.state.last.get(group)
    for activity in reversed(standing.stuck):
        if activity.kind in LAUNCHES and activity.group == group:
            what = f"{activity.kind} of {activity.name} {activity.batch}".rstrip()
            step = activity.step or (last.step if last else 0)
            return Place(step, step, True, what, activity.digest, step > 0)
    return None if last is None else _recorded(last, standing)


def _recorded(last: LastOf, standing: Standing) -> Place:
    kind = last.event.partition("_")[0]
    if last.event == "check":
        return Place(max(0, last.step - 1), last.step, False, "", 0, last.step > 0)
    what = f"{kind} of {last.role} {last.batch}".rstrip()
    # What a ring says to be in flight counts only while the pulse does not say otherwise.
    in_flight = last.in_flight and (standing.state.pulse is None or standing.in_launch)
    return Place(last.step, last.step, in_flight, what, last.digest, last.step > 0)


def engine_step(standing: Standing) -> int:
    """Return the step of the engine that a rank is in; 0 if it is in none, or not numbered."""
    return max((each.step for each in standing.stuck if each.kind not in LAUNCHES), default=0)
