"""States of ranks and the verdict on them. Real ranks are in tests/distributed/test_stalls.py."""

from __future__ import annotations

import random
from collections.abc import Mapping, Sequence
from typing import NamedTuple

import msgspec
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from graphguard.watch.looking.ranks import RankState
from graphguard.watch.stack_traces.stack_model import Frame, ProcessStacks
from graphguard.watch.verdicts.stall import StallClass, StallVerdict, Suspect
from graphguard.watch.verdicts.verdict import verdict
from tests.unit.watch.states import (
    BETWEEN_NS,
    DEVICE,
    PEERS,
    SPIN,
    TORCH,
    WORK,
    activity,
    last,
    pid_of,
    rank,
    stack,
)


def judged(
    states: Sequence[RankState],
    frames: Mapping[int, tuple[Frame, ...]] | None = None,
    before: Sequence[RankState] | None = None,
    **options: object,
) -> StallVerdict:
    stacks = {pid_of(number): stack(number, each) for number, each in (frames or {}).items()}
    return verdict(before or earlier(states), states, stacks, **options)  # type: ignore[arg-type]


class Given(NamedTuple):
    """States, stacks by rank, and the verdict on them."""

    states: list[RankState]
    frames: dict[int, tuple[Frame, ...]]
    stall_class: str
    ranks: list[int]
    waiting: list[int]


def told_of(case: str) -> StallVerdict:
    return judged(CASES[case].states, CASES[case].frames)


def earlier(states: Sequence[RankState]) -> tuple[RankState, ...]:
    """Return the states as they were a moment before, when all of it was under way already."""
    return tuple(
        msgspec.structs.replace(
            state,
            looked_ns=state.looked_ns - BETWEEN_NS,
            pulse=None
            if state.pulse is None
            else msgspec.structs.replace(
                state.pulse,
                activities=tuple(
                    msgspec.structs.replace(each, age_ns=max(0, each.age_ns - BETWEEN_NS))
                    for each in state.pulse.activities
                ),
            ),
        )
        for state in states
    )


WAITS = rank(0, activity(), did=last())
HEALTHY_AHEAD = last(41, "replay_end")
BEHIND = last(40, "replay_end")

CASES = {
    "a process is gone": Given(
        [WAITS, rank(1, state="gone", did=BEHIND)], {0: PEERS}, "process-died", [1], [0]
    ),
    "a process is a zombie": Given(
        [WAITS, rank(1, state="zombie", did=BEHIND)], {}, "process-died", [1], [0]
    ),
    "a process ended by itself before the step": Given(
        [WAITS, rank(1, state="gone", did=BEHIND, closed=True)],
        {0: PEERS},
        "process-died",
        [1],
        [0],
    ),
    "a process is stopped": Given(
        [WAITS, rank(1, state="stopped", did=BEHIND)], {0: PEERS}, "stopped", [1], [0]
    ),
    "a process is stopped in the step": Given(
        [WAITS, rank(1, activity(), state="stopped", did=last())],
        {},
        "stopped",
        [1],
        [0],
    ),
    "a process is frozen": Given(
        [WAITS, rank(1, did=BEHIND, beat=4.0)],
        {0: PEERS},
        "stopped",
        [1],
        [0],
    ),
    "a rank noted an error": Given(
        [WAITS, rank(1, did=last(41, "eager_end"), note="step failed: ValueError")],
        {0: PEERS, 1: WORK},
        "worker-error",
        [1],
        [0],
    ),
    "a rank noted an error, and was ended in order": Given(
        [
            WAITS,
            rank(
                1,
                did=last(41, "eager_end"),
                note="step failed: ValueError",
                state="gone",
                closed=True,
            ),
        ],
        {0: PEERS},
        "worker-error",
        [1],
        [0],
    ),
    "an error left the launch under way": Given(
        [WAITS, rank(1, activity(), did=last(), note="step failed: ValueError")],
        {0: PEERS, 1: WORK},
        "worker-error",
        [1],
        [0],
    ),
    "a rank spins in the step": Given(
        [WAITS, rank(1, activity("step", 0, name="execute_model", group=""), did=BEHIND)],
        {0: PEERS, 1: SPIN},
        "host-stuck",
        [1],
        [0],
    ),
    "a rank spins in the launch": Given(
        [WAITS, rank(1, activity(), did=last(), state="running")],
        {0: PEERS, 1: SPIN},
        "host-stuck",
        [1],
        [0],
    ),
    "a rank never launched, and no stack is to be had": Given(
        [WAITS, rank(1, did=BEHIND)],
        {},
        "host-stuck",
        [1],
        [0],
    ),
    "a rank decided and never launched": Given(
        [WAITS, rank(1, did=last(41, "check"))],
        {0: PEERS, 1: SPIN},
        "host-stuck",
        [1],
        [0],
    ),
    "a rank spins alone": Given(
        [rank(0, activity(), world=1, did=last(), state="running")],
        {0: SPIN},
        "host-stuck",
        [0],
        [],
    ),
    "one of two finished the step": Given(
        [WAITS, rank(1, did=HEALTHY_AHEAD)],
        {0: PEERS, 1: WORK},
        "ranks-diverged",
        [],
        [0],
    ),
    "one of two has left the step that both have launched": Given(
        [
            rank(0, activity("step", 900, name="execute_model", group=""), did=HEALTHY_AHEAD),
            rank(1, did=HEALTHY_AHEAD),
        ],
        {0: PEERS, 1: WORK},
        "ranks-diverged",
        [],
        [0],
    ),
    "one of two is a step ahead": Given(
        [WAITS, rank(1, activity(step=42), did=last(42))],
        {0: PEERS, 1: PEERS},
        "ranks-diverged",
        [],
        [0, 1],
    ),
    "one of four finished the step": Given(
        [
            *(rank(number, activity(), world=4, did=last()) for number in (0, 1, 3)),
            rank(2, world=4, did=HEALTHY_AHEAD),
        ],
        {0: PEERS, 1: PEERS, 2: WORK, 3: PEERS},
        "ranks-diverged",
        [2],
        [0, 1, 3],
    ),
    "one of four launched another graph": Given(
        [
            *(rank(number, activity(), world=4, did=last()) for number in (0, 1, 3)),
            rank(2, activity(digest=9, batch="8x2"), world=4, did=last(digest=9, batch="8x2")),
        ],
        dict.fromkeys(range(4), PEERS),
        "ranks-diverged",
        [2],
        [0, 1, 3],
    ),
    "one of two runs eagerly": Given(
        [WAITS, rank(1, activity("eager"), did=last(41, "eager_begin"))],
        {0: PEERS, 1: PEERS},
        "ranks-diverged",
        [],
        [0, 1],
    ),
    "all wait in one launch": Given(
        [WAITS, rank(1, activity(), did=last())],
        {0: PEERS, 1: PEERS},
        "device",
        [],
        [0, 1],
    ),
    "all have launched, and one waits for what comes of it": Given(
        [rank(0, activity("output", 0, group=""), did=HEALTHY_AHEAD), rank(1, did=HEALTHY_AHEAD)],
        {0: DEVICE, 1: WORK},
        "device",
        [],
        [0],
    ),
    "one is held in its launch by its device, and the other has returned": Given(
        [WAITS, rank(1, did=HEALTHY_AHEAD)],
        {0: DEVICE, 1: WORK},
        "device",
        [],
        [0],
    ),
    "all have launched, and all wait for their devices": Given(
        [
            rank(0, activity("step", 0, group=""), did=HEALTHY_AHEAD),
            rank(1, activity("step", 0, group=""), did=HEALTHY_AHEAD),
        ],
        {0: DEVICE, 1: DEVICE},
        "device",
        [],
        [0, 1],
    ),
    "one waits for its device, and one never launched": Given(
        [rank(0, activity("output", 0, group=""), did=HEALTHY_AHEAD), rank(1, did=BEHIND)],
        {0: DEVICE, 1: SPIN},
        "host-stuck",
        [1],
        [0],
    ),
    "another rank is on another node": Given(
        [rank(0, activity(), world=4, did=last()), rank(1, activity(), world=4, did=last())],
        {0: PEERS, 1: PEERS},
        "unknown",
        [],
        [0, 1],
    ),
    "nothing is under way": Given([rank(0), rank(1)], {}, "unknown", [], []),
    "nobody is there": Given([], {}, "unknown", [], []),
}


@pytest.mark.parametrize("case", CASES)
def test_the_class_and_the_ranks(case: str) -> None:
    states, frames, stall_class, blamed, waiting = CASES[case]
    told = judged(states, frames)
    assert (told.stall_class, list(told.ranks), list(told.waiting)) == (
        stall_class,
        blamed,
        waiting,
    )
    assert told.sentence


def test_where_the_host_is_stuck_is_told() -> None:
    told = told_of("a rank spins in the launch")
    assert told.where == "spin() model.py:12"
    assert (told.group, told.step, told.role, told.batch) == ("tp[0-3]", 41, "target", "16x2")
    assert told.seconds == 6.0
    assert any("stack of thread 1001" in each.source for each in told.evidence)


def test_what_is_not_known_is_told() -> None:
    told = told_of("all wait in one launch")
    assert any("there are no breadcrumbs" in each for each in told.not_known)
    told = told_of("a rank never launched, and no stack is to be had")
    assert any("where rank 1 is: its stack was not read" in each for each in told.not_known)
    told = told_of("another rank is on another node")
    assert any("ranks 2-3 of 4" in each for each in told.not_known)
    told = told_of("one of two finished the step")
    assert any("which rank is wrong" in each for each in told.not_known)


def test_breadcrumbs_of_no_replay_say_that_it_waits_outside_of_graphs() -> None:
    states = [
        msgspec.structs.replace(each, leaves_crumbs=True)
        for each in CASES["all wait in one launch"][0]
    ]
    told = judged(states, {0: PEERS, 1: PEERS})
    assert any("no replay is under way" in each for each in told.not_known)
    assert not any("there are no breadcrumbs" in each for each in told.not_known)


def test_breadcrumbs_at_the_end_say_that_no_call_is_waited_for() -> None:
    crumb = Crumb(reached=61, next_call="")
    states = [
        msgspec.structs.replace(each, leaves_crumbs=True, crumbs=(crumb,))
        for each in CASES["all wait in one launch"][0]
    ]
    told = judged(states, {0: PEERS, 1: PEERS})
    assert told.collective is None
    assert any("have passed all their calls" in each for each in told.not_known)


class Crumb(msgspec.Struct):
    launched: int = 3
    finished: int = 2
    reached: int = 16
    positions: int = 61
    next_call: str = "all_reduce of 4096 float16 over tp:0"


def test_breadcrumbs_say_which_collective_it_is() -> None:
    states = [
        msgspec.structs.replace(each, crumbs=(Crumb(),))
        for each in CASES["all wait in one launch"][0]
    ]
    told = judged(states, {0: PEERS, 1: PEERS})
    assert str(told.collective) == "all_reduce of 4096 float16 over tp:0 (17 of 61)"
    assert not any("breadcrumbs" in each for each in told.not_known)
    assert sum("has passed 16 of 61 calls" in each.what for each in told.evidence) == 2


def test_in_a_process_with_cuda_a_stack_of_python_alone_blames_nobody() -> None:
    states = CASES["a rank spins in the launch"].states
    told = judged(states, {0: SPIN, 1: SPIN}, on_cuda=frozenset({pid_of(0), pid_of(1)}))
    assert told.stall_class is not StallClass.HOST_STUCK
    assert told.ranks == ()


def test_a_thread_that_sleeps_in_what_python_calls_blames_nobody() -> None:
    # It may be in the wait of a collective that was begun before: that is not on a stack of Python.
    told = judged([WAITS, rank(1, activity(), did=last())], {0: PEERS, 1: SPIN})
    assert told.ranks == ()
    assert any("no native frames" in each for each in told.not_known)


def test_one_that_computes_while_others_sleep_is_not_blamed_for_that() -> None:
    # Collectives in shared memory spin while they wait.
    after = [WAITS, rank(1, activity(), did=last(), cpu=0.29, state="running")]
    before = earlier([WAITS, rank(1, activity(), did=last(), cpu=0.0, state="running")])
    assert judged(after, {}, before).ranks == ()
    assert judged(after, {0: PEERS, 1: TORCH}, before).ranks == ()


def test_a_rank_that_compiles_is_slow_whatever_the_one_does_that_waits_for_it() -> None:
    compiles = (Frame("result", "/lib/concurrent/futures/_base.py", 1), *COMPILES)
    states = [
        rank(0, activity(), did=last(), cpu=0.29, state="running"),
        rank(1, activity(), did=last()),
    ]
    before = earlier([rank(0, activity(), did=last(), state="running"), states[1]])
    told = judged(states, {0: TORCH, 1: compiles}, before)
    assert (told.stall_class, told.ranks) == ("slow", (1,))


def test_of_two_in_their_own_code_the_one_that_sleeps_in_its_launch_is_not_blamed() -> None:
    lock = (Frame("__futex_wait", "libc.so.6", 0, native=True), Frame("replay", "/app/x.py", 16))
    spins = (Frame("spin", "/app/x.so", 0, native=True), Frame("tokenize", "/app/x.py", 20))
    waits = rank(0, activity(), did=last())
    late = rank(1, activity("step", 0, group=""), did=BEHIND, state="running")
    told = judged([waits, late], {0: lock, 1: spins})
    assert (told.stall_class, told.ranks, told.waiting) == ("host-stuck", (1,), (0,))
    in_launch = rank(1, activity(), did=last(), state="running")
    told = judged([waits, in_launch], {0: lock, 1: spins})
    assert (told.stall_class, told.ranks, told.waiting) == ("host-stuck", (1,), (0,))


def test_a_rank_that_moves_is_not_blamed() -> None:
    after = [WAITS, rank(1, activity("step", 0, group="", age=0.1), did=last(), ended=99)]
    before = earlier([WAITS, rank(1, did=last(), ended=90)])
    assert judged(after, {0: PEERS, 1: SPIN}, before).ranks == ()


def test_a_ring_of_an_earlier_run_is_no_process_that_died() -> None:
    old = msgspec.structs.replace(rank(1, state="gone"), started_ns=1, last={})
    told = judged([WAITS, old], {0: PEERS})
    assert told.stall_class is not StallClass.PROCESS_DIED


def test_a_stack_that_waits_in_compiled_code_decides() -> None:
    gloo = (
        Frame("__futex_abstimed_wait_common64", "libc.so.6", 0, native=True),
        Frame("std::condition_variable::wait(std::unique_lock&)", "libstdc++.so.6", 0, native=True),
        Frame("gloo::transport::tcp::UnboundBuffer::waitRecv", "libtorch_cpu.so", 0, native=True),
        Frame("forward", "/app/model.py", 20),
    )
    spins = (
        Frame("spin", "/app/libspin.so", 0, native=True),
        Frame("ffi_call", "libffi.so.8", 0, native=True),
        Frame("forward", "/app/model.py", 31),
    )
    told = judged([WAITS, rank(1, activity(), did=last())], {0: gloo, 1: spins})
    assert (told.stall_class, told.ranks) == ("host-stuck", (1,))
    assert told.where == "spin() libspin.so, called by forward() model.py:31"


# ---- slow ----------------------------------------------------------------------------------------

COMPILES = (
    Frame("compile_fx", "/site-packages/torch/_inductor/compile_fx.py", 1),
    Frame("forward", "/app/model.py", 20),
)
RUNS_COMPILED = (
    Frame("all_reduce", "/site-packages/torch/distributed/distributed_c10d.py", 1),
    Frame("call", "/site-packages/torch/_inductor/utils.py", 1),
    Frame("_fn", "/site-packages/torch/_dynamo/eval_frame.py", 1),
)


@pytest.mark.parametrize(
    ("late", "frames"),
    [
        (rank(1, activity(), did=last(), extended="tuning"), SPIN),
        (rank(1, activity(), did=last()), COMPILES),
        (rank(1, did=BEHIND), COMPILES),
        (rank(1, activity(), did=last(), waits_in="hrtimer_nanosleep"), SPIN),
    ],
)
def test_a_rank_that_is_seen_to_be_slow_is_not_stuck(
    late: RankState, frames: tuple[Frame, ...]
) -> None:
    told = judged([WAITS, late], {0: PEERS, 1: frames})
    assert (told.stall_class, told.ranks) == ("slow", (1,))
    told = judged([WAITS, late], {0: PEERS, 1: frames}, may_be_slow=False)
    assert told.stall_class is not StallClass.SLOW


def test_compiled_code_that_runs_is_not_compiled() -> None:
    told = judged([WAITS, rank(1, activity(), did=last())], {0: RUNS_COMPILED, 1: RUNS_COMPILED})
    assert told.stall_class == "device"


def test_short_sleeps_are_not_one_long_one() -> None:
    after = [WAITS, rank(1, activity(), did=last(), waits_in="hrtimer_nanosleep", switches=40)]
    before = earlier([WAITS, rank(1, activity(), did=last(), waits_in="hrtimer_nanosleep")])
    told = judged(after, {0: PEERS, 1: SPIN}, before)
    assert told.stall_class == "host-stuck"


def test_a_first_run_that_computes_is_slow_and_a_later_one_is_not() -> None:
    after = [WAITS, rank(1, activity(), did=last(), cpu=0.29, state="running")]
    before = earlier([WAITS, rank(1, activity(), did=last(), state="running")])
    firsts = {pid_of(1): "it runs target 16x2 for the first time"}
    assert judged(after, {0: PEERS, 1: SPIN}, before, first_runs=firsts).stall_class == "slow"
    assert judged(after, {0: PEERS, 1: SPIN}, before).stall_class == "host-stuck"


def test_what_a_waiting_rank_says_of_itself_does_not_excuse_the_other() -> None:
    waits = rank(0, activity(), did=last(), extended="waiting for the other")
    told = judged([waits, rank(1, activity(), did=last(), state="running")], {0: PEERS, 1: SPIN})
    assert (told.stall_class, told.ranks) == ("host-stuck", (1,))


# ---- whatever the ranks are in -------------------------------------------------------------------

_FRAMES = st.sampled_from([PEERS, DEVICE, SPIN, WORK, TORCH, COMPILES, ()])
_EVENTS = st.sampled_from(["check", "replay_begin", "replay_end", "eager_begin", "eager_end"])


@st.composite
def _rank(draw: st.DrawFn, number: int, world: int) -> RankState:
    kinds = draw(st.lists(st.sampled_from(["replay", "eager", "step", "output"]), max_size=2))
    doing = [
        activity(
            kind,
            draw(st.integers(0, 3)),
            digest=draw(st.integers(0, 1)),
            age=draw(st.floats(0, 100)),
            group=draw(st.sampled_from(["tp[0-3]", ""])),
        )
        for kind in kinds
    ]
    did = last(draw(st.integers(0, 3)), draw(_EVENTS), draw(st.integers(0, 1)))
    return rank(
        number,
        *doing,
        world=world,
        did=draw(st.sampled_from([did, None])),
        state=draw(st.sampled_from(["sleeping", "running", "disk", "stopped", "zombie", "gone"])),
        closed=draw(st.booleans()),
        note=draw(st.sampled_from(["", "", "step failed: x\x1b[31m"])),
        beat=draw(st.sampled_from([0.05, 9.0])),
        cpu=draw(st.sampled_from([0.0, 0.3])),
        waits_in=draw(st.sampled_from(["", "hrtimer_nanosleep"])),
        extended=draw(st.sampled_from(["", "", "tuning"])),
        pulse=draw(st.sampled_from([True, True, False])),
    )


@st.composite
def _job(draw: st.DrawFn) -> tuple[list[RankState], list[RankState], dict[int, ProcessStacks]]:
    world = draw(st.integers(1, 4))
    seen = draw(st.integers(0, world))
    after = [draw(_rank(number, world)) for number in range(seen)]
    before = list(earlier(after))
    if draw(st.booleans()) and before:
        del before[draw(st.integers(0, len(before) - 1))]
    stacks: dict[int, ProcessStacks] = {}
    for number in range(seen):
        if draw(st.booleans()):
            stacks[pid_of(number)] = stack(number, draw(_FRAMES))
    return before, after, stacks


@settings(max_examples=400, deadline=None)
@given(_job(), st.randoms(use_true_random=False))
def test_no_waiting_rank_is_blamed_and_the_order_does_not_matter(
    job: tuple[list[RankState], list[RankState], dict[int, ProcessStacks]],
    shuffle: random.Random,
) -> None:
    before, after, stacks = job
    told = verdict(before, after, stacks)
    assert not set(told.ranks) & set(told.waiting)
    assert list(told.ranks) == sorted(told.ranks)
    assert msgspec.json.decode(msgspec.json.encode(told), type=StallVerdict) == told
    for state in after:
        waits = stacks.get(state.pid) is not None and stacks[state.pid].threads[0].frames == PEERS
        in_launch = state.pulse is not None and any(
            each.kind in ("replay", "eager") for each in state.pulse.activities
        )
        if state.rank in told.ranks and waits and in_launch and state.process.alive:
            # Only who launched something else than most is named while it waits for the others.
            assert told.stall_class in (StallClass.RANKS_DIVERGED, StallClass.STOPPED)
    mixed = list(after)
    shuffle.shuffle(mixed)
    again = verdict(before[::-1], mixed, stacks)
    assert (again.stall_class, again.ranks, again.waiting) == (
        told.stall_class,
        told.ranks,
        told.waiting,
    )


@settings(max_examples=100, deadline=None)
@given(_job(), st.integers(0, 5), st.sampled_from(["", "replay", "output", "startup"]))
def test_whoever_told_of_it_there_is_a_verdict(
    job: tuple[list[RankState], list[RankState], dict[int, ProcessStacks]], number: int, kind: str
) -> None:
    before, after, stacks = job
    told = verdict(before, after, stacks, suspect=Suspect(number, pid_of(number), kind, 5))
    assert told.sentence
    assert told.since.startswith("20") or not after
