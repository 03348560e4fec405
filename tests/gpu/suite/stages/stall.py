"""A replay that does not end, and that graphguard has not caused: a wait for a flag of the host."""

from __future__ import annotations

import importlib.util
from pathlib import Path

from tests.gpu.suite import needs, ranks
from tests.gpu.suite.lines import Claim, NotRun, tell
from tests.gpu.suite.measuring import tell_value
from tests.gpu.suite.program import run_stage
from tests.gpu.suite.settings import Settings

NEEDS = (needs.device, needs.real_graphs)
THRESHOLD_SECONDS = 2.0
NAMED_WITHIN_SECONDS = 2.0
HELD_SECONDS = 10.0
START_SECONDS = 30.0
MARK = "graphguard: STALL ["


def run(settings: Settings) -> None:
    """Let a replay wait, and look for the line that names it."""
    if importlib.util.find_spec("graphguard.watch.examining.examiner") is None:
        tell(NotRun("the verdict on a stall", "this version of graphguard gives none"))
    folder = Path(settings.scratch, "stall")
    seen_at: list[float] = []

    def look(events: list[tuple[ranks.Event, ...]]) -> bool:
        # The line is written by another process, into the log of this one.
        if not seen_at and MARK in (folder / "log.0").read_text(errors="replace"):
            seen_at.append(ranks.now())
        return any(event.name == "done" for event in events[0])

    variables = {
        "GRAPHGUARD_STALL_SECONDS": f"{THRESHOLD_SECONDS:g}",
        "GRAPHGUARD_BREADCRUMBS": "1",
    }
    (rank,) = ranks.run(
        "stalled",
        [f"{HELD_SECONDS:g}"],
        folder,
        settings,
        START_SECONDS + HELD_SECONDS,
        number=1,
        environment=variables,
        until=look,
    )
    launched, ended = rank.when("launch"), rank.when("end")
    if launched is None or ended is None:
        tell(Claim("a captured wait stalls a replay", False, rank.log[-600:]))
        return
    waited = f"the replay took {ended - launched:.1f} s, and ended when the flag was set"
    tell(Claim("a captured wait stalls a replay", ended - launched >= HELD_SECONDS / 2, waited))
    if importlib.util.find_spec("graphguard.watch.examining.examiner") is None:
        return
    bound = THRESHOLD_SECONDS + NAMED_WITHIN_SECONDS
    what = f"a stall is named within {bound:.0f} s of the launch"
    lines = [line for line in rank.log.splitlines() if MARK in line]
    delay = seen_at[0] - launched if seen_at else None
    held = delay is not None and delay <= bound
    tell(Claim(what, held, lines[0][:600] if lines else "no line about it"))
    if delay is not None:
        tell_value("from the launch to the line that names the stall", "s", delay)


if __name__ == "__main__":
    run_stage("stall", NEEDS, run)
