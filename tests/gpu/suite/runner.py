"""Running stages one after the other within a budget, and keeping what each of them told."""

from __future__ import annotations

import os
import shutil
import time
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path

from tests.gpu.suite import bounded, lines, needs
from tests.gpu.suite.machine import Machine
from tests.gpu.suite.result import StageResult, stage_result
from tests.gpu.suite.settings import Settings
from tests.gpu.suite.stage import Stage

LOG_TAIL = 4_000
RESERVE_SECONDS = 5.0
"""Of the budget, for writing results and for what a killed stage takes to end."""


class Budget:
    """The time that is left.

    Args:
        seconds: In all; None for no limit but those of the stages.
        clock: Tells the time, in seconds.
    """

    def __init__(self, seconds: float | None, clock: Callable[[], float] = time.monotonic) -> None:
        self._clock = clock
        self._end = None if seconds is None else clock() + seconds - RESERVE_SECONDS

    def for_stage(self, stage: Stage) -> float:
        """Return how long a stage may take now; 0 if what is left is of no use to it."""
        if self._end is None:
            return stage.seconds
        left = self._end - self._clock()
        return min(stage.seconds, left) if left >= min(stage.least, stage.seconds) else 0.0


def run_stages(
    stages: Sequence[Stage], machine: Machine, given: Settings, budget: Budget, scratch: Path
) -> Iterator[StageResult]:
    """Run stages and yield what came out of each, whatever becomes of the others."""
    for stage in stages:
        if stage.needs_device and machine.no_device:
            yield _not_run(stage, machine.no_device)
            continue
        seconds = budget.for_stage(stage)
        if not seconds:
            yield _not_run(stage, f"less than {stage.least:.0f} s of the time given were left")
            continue
        folder = scratch / stage.title.replace(":", "-")
        shutil.rmtree(folder, ignore_errors=True)
        folder.mkdir(parents=True)
        yield _run(stage, given, seconds, folder)


def _run(stage: Stage, given: Settings, seconds: float, folder: Path) -> StageResult:
    # What it measures it has to leave out by itself, before it is killed for its time.
    own = Settings(str(folder), seconds * 0.9, given.vllm, given.nccl)
    settings_file, log = folder / "settings.json", folder / "log"
    own.write(settings_file)
    environment = needs.two_rank_environment(given) if stage.shares_device else dict(os.environ)
    environment["GRAPHGUARD_RESULTS"] = str(folder)
    environment["PYTHONUNBUFFERED"] = "1"
    try:
        ended = bounded.run(stage.full_command(str(settings_file)), log, seconds, environment)
    except OSError as error:
        told = lines.Told()
        why = f"it could not be started: {error}"
        return stage_result(stage.title, stage.about, told, status="failed", why=why)
    content = _tail(log, bounded.MAX_OUTPUT_BYTES)
    told = lines.read(content)
    status, why = _judged(ended, told)
    tail = "" if status == "passed" else content[-LOG_TAIL:].decode(errors="replace")
    return stage_result(
        stage.title,
        stage.about,
        told,
        status=status,
        why=why,
        seconds=round(ended.seconds, 1),
        left_behind=ended.left_behind,
        log_tail=tail,
    )


def _judged(ended: bounded.Ended, told: lines.Told) -> tuple[str, str]:
    """Return what became of a stage, and why."""
    immortal = f"; {ended.immortal} of its processes cannot be ended" if ended.immortal else ""
    if ended.why_killed:
        status = "timed out" if "ran for" in ended.why_killed else "failed"
        return status, ended.why_killed + immortal
    if ended.code != 0:
        return "failed", f"it ended with {ended.code}{immortal}"
    if told.nothing:
        return "failed", f"it ended with 0 and told nothing{immortal}"
    if not told.figures and not told.claims:
        return "not run", "; ".join(dict.fromkeys(line.why for line in told.not_run))
    return "passed", immortal.removeprefix("; ")


def _not_run(stage: Stage, why: str) -> StageResult:
    return stage_result(stage.title, stage.about, lines.Told(), status="not run", why=why)


def _tail(path: Path, most: int) -> bytes:
    with path.open("rb") as log:
        log.seek(max(0, path.stat().st_size - most))
        return log.read(most)
