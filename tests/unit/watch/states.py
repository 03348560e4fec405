"""States of ranks for the tests of verdicts, made of what matters in each."""

from __future__ import annotations

import msgspec

from graphguard.blackbox.pulse import Activity, Pulse
from graphguard.watch.looking.processes import ProcessState, ThreadState
from graphguard.watch.looking.ranks import RankState
from graphguard.watch.looking.recent import LastOf
from graphguard.watch.stack_traces.stack_model import Frame, ProcessStacks, ThreadStack

GROUP = "tp[0-3]"
BETWEEN_NS = 300_000_000
NOW_NS = 1_800_000_000_000_000_000

PEERS = (
    Frame("wrapper", "/site-packages/torch/distributed/c10d_logger.py", 83),
    Frame("all_reduce", "/site-packages/torch/distributed/distributed_c10d.py", 3252),
    Frame("forward", "/app/model.py", 20),
)
DEVICE = (
    Frame("synchronize", "/site-packages/torch/cuda/streams.py", 231),
    Frame("synchronize", "/site-packages/torch/cuda/__init__.py", 1000),
    Frame("get_output", "/app/runner.py", 9),
)
SPIN = (Frame("spin", "/app/model.py", 12), Frame("forward", "/app/model.py", 20))
WORK = (
    Frame("acquire_read", "/v/vllm/distributed/device_communicators/shm_broadcast.py", 600),
    Frame("dequeue", "/v/vllm/distributed/device_communicators/shm_broadcast.py", 690),
    Frame("worker_busy_loop", "/v/vllm/v1/executor/multiproc_executor.py", 900),
)
TORCH = (Frame("__call__", "/site-packages/torch/_ops.py", 1), Frame("forward", "/app/model.py", 2))


def pid_of(rank: int) -> int:
    return 1000 + rank


def activity(
    kind: str = "replay",
    step: int = 41,
    *,
    name: str = "target",
    digest: int = 7,
    batch: str = "16x2",
    age: float = 6.0,
    group: str = GROUP,
    thread: int = 0,
) -> Activity:
    return Activity(kind, name, group, step, digest, batch, int(age * 1e9), int(age * 1e9), thread)


def last(
    step: int = 41, event: str = "replay_begin", digest: int = 7, batch: str = "16x2"
) -> LastOf:
    return LastOf(
        step, f"{event} of target", event, NOW_NS, event.endswith("begin"), "target", batch, digest
    )


def rank(
    number: int,
    *activities: Activity,
    world: int = 2,
    did: LastOf | None = None,
    state: str = "sleeping",
    closed: bool = False,
    note: str = "",
    beat: float = 0.05,
    ended: int = 80,
    cpu: float = 0.0,
    waits_in: str = "",
    switches: int = 5,
    extended: str = "",
    group: str = GROUP,
    pulse: bool = True,
) -> RankState:
    """Return one rank.

    Args:
        number: Its rank.
        activities: What is under way in it.
        world: How many ranks there are.
        did: What it did last in the group.
        state: Of its process.
        closed: Whether it said that it ended.
        note: The error that it noted.
        beat: Seconds since its watchdog has beaten.
        ended: How many activities have ended.
        cpu: Seconds that its main thread has used.
        waits_in: What that thread waits in.
        switches: How often it has waited.
        extended: What it says that is slow.
        group: The group it did that in.
        pulse: Whether its ring has a pulse.
    """
    pid = pid_of(number)
    alive = state not in ("gone", "zombie")
    thread = ThreadState(pid, "main", state, int(cpu * 1e9), switches, waits_in)
    there = tuple(
        each if each.thread else msgspec.structs.replace(each, thread=pid) for each in activities
    )
    return RankState(
        rank=number,
        world_size=world,
        pid=pid,
        host="here",
        ring=f"/boxes/blackbox.rank{number}.{pid}.ring",
        process=ProcessState(
            pid=pid,
            alive=alive,
            state=state,
            started_ticks=100 if alive else 0,
            threads=(thread,) if alive else (),
        ),
        pulse=Pulse(
            activities=there,
            beat_age_ns=int(beat * 1e9),
            stall_ns=5_000_000_000,
            startup_ns=60_000_000_000,
            extended_ns=30_000_000_000 if extended else 0,
            extended_why=extended,
            stack_signal=0,
            stacks_path="",
            ended=ended,
            stalls=0,
            missed_ns=0,
        )
        if pulse
        else None,
        last={group: did} if did is not None else {},
        note=note,
        closed=closed,
        started_ns=NOW_NS - 100_000_000_000,
        looked_ns=NOW_NS,
    )


def stack(number: int, frames: tuple[Frame, ...], tid: int = 0) -> ProcessStacks:
    pid = pid_of(number)
    thread = ThreadStack(tid or pid, "MainThread", frames, main=True)
    return ProcessStacks(pid, "py-spy", (thread,))
