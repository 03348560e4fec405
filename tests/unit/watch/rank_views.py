"""States of made-up ranks."""

from __future__ import annotations

from typing import Any

from graphguard.blackbox.pulse import Activity, Pulse
from graphguard.watch.looking.bundles import Bundle, ToldVerdict
from graphguard.watch.looking.processes import ProcessState
from graphguard.watch.looking.ranks import RankState
from graphguard.watch.looking.recent import LastOf

SECOND = 1_000_000_000
NOW = 1_795_288_452 * SECOND
"""19:14:12 UTC."""


def activity(kind: str = "replay", seconds: float = 0.002, **fields: Any) -> Activity:
    ns = int(seconds * SECOND)
    given: dict[str, Any] = {
        "name": "target",
        "group": "0[0-3]",
        "step": 41,
        "digest": 0xABCD,
        "batch": "16x2",
        "age_ns": ns,
        "watched_ns": ns,
        "thread": 7,
    }
    return Activity(kind=kind, **{**given, **fields})


def pulse(*activities: Activity, beat_ns: int | None = 40_000_000, **fields: Any) -> Pulse:
    given: dict[str, Any] = {
        "stall_ns": 5 * SECOND,
        "startup_ns": 60 * SECOND,
        "extended_ns": 0,
        "extended_why": "",
        "stack_signal": 0,
        "stacks_path": "",
        "ended": 120,
        "stalls": 0,
        "missed_ns": 0,
    }
    return Pulse(activities=activities, beat_age_ns=beat_ns, **{**given, **fields})


def last(step: int = 41, *, in_flight: bool = True, seconds: float = 1.0) -> LastOf:
    return LastOf(
        step=step,
        text="began replay of target 16x2" if in_flight else "ended replay of target 16x2",
        event="replay_begin" if in_flight else "replay_end",
        time_ns=NOW - int(seconds * SECOND),
        in_flight=in_flight,
        role="target",
        batch="16x2",
        digest=0xABCD,
        verdict="replay (exact)",
    )


def process(pid: int = 1000, state: str = "sleeping") -> ProcessState:
    alive = state not in ("gone", "zombie")
    return ProcessState(
        pid=pid, alive=alive, state=state, started_ticks=9, cpu_ns=5, name="python", num_threads=3
    )


def rank(number: int = 0, *, state: str = "sleeping", **fields: Any) -> RankState:
    given: dict[str, Any] = {
        "world_size": 4,
        "host": "host-a",
        "ring": f"/run/blackbox.rank{number}.{1000 + number}.ring",
        "process": process(1000 + number, state),
        "pulse": pulse(),
        "last": {"0[0-3]": last(in_flight=False)},
        "note": "",
        "verdicts": {"pad": 7, "replay": 812},
        "looked_ns": NOW,
    }
    return RankState(rank=number, pid=1000 + number, **{**given, **fields})


def bundle(**fields: Any) -> Bundle:
    verdict = ToldVerdict(
        stall_class="host-stuck",
        ranks=(1,),
        waiting=(0, 2, 3),
        sentence="rank 1 has not launched step 41 of 0[0-3]",
    )
    given: dict[str, Any] = {
        "path": "/run/stall-20261121T191410Z-host-a-0123abcd",
        "made_ns": NOW,
        "examined": True,
        "verdict": verdict,
    }
    return Bundle(**{**given, **fields})
