"""Letting a case happen in an engine that runs, and noting what is said of it, and when."""

from __future__ import annotations

import os
import shutil
import signal
import subprocess
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import NamedTuple

import msgspec

from tests.vllm.engine import EngineFailed, EngineRun, Fault, engine, trace
from tests.vllm.engine.emulation import delays
from tests.vllm.engine.processes import wait_until
from tests.vllm.stalls import evidence
from tests.vllm.stalls.cases import IDLE, KILL, STOP, Case
from tests.vllm.stalls.observing import OVER, SLOW, STALL, VLLM, Kept, Observer

STALL_SECONDS = 5.0
STARTUP_SECONDS = 15.0
VLLM_WARNING_SECONDS = 10
VLLM_TIMEOUT_SECONDS = 40

PROMPTS = [[5 + i, 6, 7] for i in range(15)]
TOKENS = 900
_BYTES_BEFORE = 30_000
"""Of the trace of a rank: some tens of steps."""

_QUIET_SECONDS = 7.0
_TELL_SECONDS = 30.0


class Seen(msgspec.Struct, kw_only=True):
    """What came of a case.

    Attributes:
        case: Its name.
        graphs: Whether the engine had graphs.
        rank: The rank that it happened to.
        right: The classes that were right.
        limit: What GRAPHGUARD_STALL_SECONDS was, or that of start-up.
        said: The class that was told; empty if nothing was.
        blamed: The ranks that were blamed.
        waiting: The ranks that were said to wait.
        told_after: Seconds from the event to the line in the log.
        kept_after: Seconds from the event to the bundle's index.
        told: The line.
        where: The call that was named.
        collective: The collective that was named, where there are breadcrumbs.
        lines: How many lines named a stall.
        slow: Whether it was told as slow.
        over: What was said when it was over.
        over_after: How many seconds after its end that was.
        lacks: What the bundle lacks; nothing if there is all that there should be.
        vllm: Seconds from the event to what vLLM said, by what that means.
        outcome: What became of the requests: ``served``, or the error's name.
        load: The load of the machine at the event, over a minute.
        problems: What is not as it should be.
    """

    case: str
    graphs: bool
    rank: int
    right: tuple[str, ...]
    limit: float
    said: str = ""
    blamed: tuple[int, ...] = ()
    waiting: tuple[int, ...] = ()
    told_after: float | None = None
    kept_after: float | None = None
    told: str = ""
    where: str = ""
    collective: str = ""
    lines: int = 0
    slow: bool = False
    over: str = ""
    over_after: float | None = None
    lacks: list[str] = []
    vllm: dict[str, float] = {}
    outcome: str = ""
    load: float = 0.0
    problems: list[str] = []


class Happened(NamedTuple):
    """A case that has happened.

    Attributes:
        case: The case.
        began: When, in seconds since the epoch.
        ended: When the harness ended it, if it did.
        pids: The workers that it left alive, by their ranks.
    """

    case: Case
    began: float
    ended: float
    pids: dict[int, int]


@contextmanager
def stalling_engine(
    *,
    graphs: bool = True,
    faults: Sequence[Fault] = (),
    wait: bool = True,
    settings: dict[str, str] | None = None,
) -> Iterator[tuple[EngineRun, Observer]]:
    """Start an engine whose stalls are looked for, and watch it."""
    variables = {
        "GRAPHGUARD_STALL_SECONDS": str(STALL_SECONDS),
        "GRAPHGUARD_STALL_STARTUP_SECONDS": str(STARTUP_SECONDS),
        "VLLM_RINGBUFFER_WARNING_INTERVAL": str(VLLM_WARNING_SECONDS),
    }
    with engine(
        graphguard="observe",
        emulate=graphs,
        faults=faults,
        wait=False,
        step_seconds=VLLM_TIMEOUT_SECONDS,
        # An examiner has the niceness of what it examines. As in production, that is none.
        niceness=0,
        extra_environment=variables | (settings or {}),
    ) as run:
        _compile_the_spin(run.directory)
        with Observer(run.processes.log, run.graphguard) as observer:
            try:
                if wait:
                    run.wait_until_ready()
                yield run, observer
            finally:
                delays.release(run.directory)
                for pid in run.processes.workers().values():
                    _continue(pid)


def happen(run: EngineRun, observer: Observer, case: Case, *, graphs: bool) -> Seen:
    """Let a case happen while requests run, and wait until it is over, or the engine is."""
    seen = Seen(
        case=case.name, graphs=graphs, rank=case.rank, right=case.right, limit=STALL_SECONDS
    )
    if case.inject != IDLE:
        at = trace.size(run.directory, 0)
        run.begin(PROMPTS, TOKENS)
        if not wait_until(lambda: trace.size(run.directory, 0) > at + _BYTES_BEFORE, 60):
            raise RuntimeError(f"no steps before {case.name}")
    seen.load = os.getloadavg()[0]
    pids = run.processes.workers()
    event = _begin(run, case)
    if case.inject == KILL:
        del pids[case.rank]
    if case.right:
        _wait_for_the_line(run, observer, event, STALL_SECONDS)
    wait_until(lambda: _dead(run), max(0.0, event + case.hold - time.time()))
    if case.hold:
        _end(run, case)
    ended = time.time()
    seen.outcome = "nothing asked" if case.inject == IDLE else _finished(run)
    if case.hold and observer.first(STALL, event) is not None:
        wait_until(lambda: observer.first(OVER, ended) is not None, 15)
    elif not case.right:
        time.sleep(_QUIET_SECONDS)
    if observer.first(STALL, event) is not None:
        # An engine that has ended is swept up soon, with all that examines it.
        wait_until(lambda: any(kept.index() for kept in observer.kept(event)), 10)
    if seen.outcome == "served":
        # The next case would be part of this stall.
        wait_until(lambda: not run.processes.examiners(), 15)
    return judge(seen, observer, Happened(case, event, ended, pids))


def happen_at_start(case: Case, *, graphs: bool = True) -> Seen:
    """Start an engine in which a rank hangs before it serves."""
    assert isinstance(case.inject, Fault)
    seen = Seen(
        case=case.name, graphs=graphs, rank=case.rank, right=case.right, limit=STARTUP_SECONDS
    )
    with stalling_engine(graphs=graphs, faults=[case.inject], wait=False) as (run, observer):
        event = _time_of_fault(run, case.rank, 0, 300.0)
        pids = run.processes.workers()
        seen.load = os.getloadavg()[0]
        _wait_for_the_line(run, observer, event, STARTUP_SECONDS)
        wait_until(lambda: _dead(run), max(0.0, event + case.hold - time.time()))
        _end(run, case)
        ended = time.time()
        try:
            run.wait_until_ready(120.0)
            seen.outcome = "started"
        except EngineFailed as error:
            seen.outcome = error.kind
        wait_until(lambda: observer.first(OVER, ended) is not None, 15)
        return keep_evidence(run, judge(seen, observer, Happened(case, event, ended, pids)))


def judge(seen: Seen, observer: Observer, happened: Happened) -> Seen:
    """Fill in what was said, and what of it is not right."""
    event, ended = happened.began, happened.ended
    observer.look()
    lines = observer.all(STALL, event)
    seen.lines = len(lines)
    seen.slow = observer.first(SLOW, event) is not None
    seen.vllm = {
        what: round(line.seen - event, 2)
        for what, pattern in VLLM.items()
        if (line := observer.first(pattern, event)) is not None
    }
    if lines:
        seen.told, seen.told_after = lines[0].text, round(lines[0].seen - event, 2)
        found = STALL.search(lines[0].text)
        seen.said = found["of"] if found else ""
    if (line := observer.first(OVER, event)) is not None:
        found = OVER.search(line.text)
        seen.over = found["how"] if found else ""
        seen.over_after = round(line.seen - ended, 2)
    kept = observer.kept(event)
    if kept:
        _read_bundle(seen, kept[0], happened)
    elif lines:
        seen.lacks = ["there is no bundle"]
    seen.problems = list(_problems(seen, happened.case))
    return seen


def _read_bundle(seen: Seen, kept: Kept, happened: Happened) -> None:
    verdict = kept.verdict()
    seen.blamed = tuple(verdict.get("ranks") or ())
    seen.waiting = tuple(verdict.get("waiting") or ())
    seen.where = str(verdict.get("where") or "")
    if found := verdict.get("collective"):
        seen.collective = f"{found['operation']} ({found['position']} of {found['of']})"
    seen.lacks = evidence.lacks(kept.path, happened.pids, startup=happened.case.startup)
    index = kept.path / "index.json"
    if index.exists():
        seen.kept_after = round(index.stat().st_mtime - happened.began, 2)


def _problems(seen: Seen, case: Case) -> Iterator[str]:
    if not case.right:
        if seen.lines:
            yield f"an alarm: {seen.said}"
        if seen.outcome not in ("served", "nothing asked"):
            yield f"the engine did not serve: {seen.outcome}"
        return
    if not seen.lines:
        if not case.may_be_silent:
            yield "not seen"
        return
    if seen.said not in case.right:
        yield f"class {seen.said}"
    if wrong := set(seen.blamed) - set(case.blamed):
        yield f"blamed on rank {', '.join(map(str, sorted(wrong)))}"
    if set(case.blamed) - set(seen.blamed) and seen.said not in ("device", "ranks-diverged"):
        yield "nobody blamed"
    if seen.told_after is not None and seen.told_after > seen.limit + 2.0:
        yield f"late: {seen.told_after - seen.limit:.1f} s after the limit"
    if seen.lines > 1:
        yield f"told {seen.lines} times"
    yield from (f"the bundle lacks {lack}" for lack in seen.lacks)


def _wait_for_the_line(run: EngineRun, observer: Observer, event: float, limit: float) -> None:
    """Wait until a stall is told; if that takes long, keep what its examiners are doing."""

    def told() -> bool:
        return observer.first(STALL, event) is not None or _dead(run)

    wait_until(told, limit + 7.0)
    if not told() and (into := os.environ.get("GRAPHGUARD_TEST_KEEP")):
        for pid in run.processes.examiners():
            command = ["py-spy", "dump", "--nonblocking", "--pid", str(pid)]
            done = subprocess.run(command, capture_output=True, text=True, check=False)
            status = Path(f"/proc/{pid}/status").read_text()
            Path(into, f"examiner-{pid}.txt").write_text(done.stdout + done.stderr + status)
    wait_until(told, limit + _TELL_SECONDS)


def keep_evidence(run: EngineRun, seen: Seen) -> Seen:
    """Copy the bundles and the log to where they outlive the engine, for whoever looks closer."""
    into = os.environ.get("GRAPHGUARD_TEST_KEEP")
    if into:
        folder = Path(
            into, f"{seen.case.replace('/', '-')[:60]}-{'graphs' if seen.graphs else 'eager'}"
        )
        shutil.rmtree(folder, ignore_errors=True)
        shutil.copytree(run.graphguard, folder, ignore_dangling_symlinks=True)
        shutil.copyfile(run.processes.log, folder / "engine.log")
    return seen


def _begin(run: EngineRun, case: Case) -> float:
    """Let it happen, and return when it did."""
    if isinstance(case.inject, Fault):
        before = trace.size(run.directory, case.rank)
        run.inject(case.inject)
        return _time_of_fault(run, case.rank, before, 30.0)
    event = time.time()
    if case.inject == STOP:
        run.processes.stop(case.rank)
    elif case.inject == KILL:
        run.processes.kill(case.rank)
    return event


def _end(run: EngineRun, case: Case) -> None:
    if case.inject == STOP and case.rank in run.processes.workers():
        run.processes.resume(case.rank)
    delays.release(run.directory)


def _time_of_fault(run: EngineRun, rank: int, before: int, seconds: float) -> float:
    def faults() -> list[trace.Event]:
        return trace.read(run.directory, rank, before).of("fault")

    if not wait_until(lambda: bool(faults()) or _dead(run), seconds) or not faults():
        raise RuntimeError(f"the fault did not happen\n{run.log[-4000:]}")
    return faults()[0].time


def _finished(run: EngineRun) -> str:
    try:
        tokens = run.finish(VLLM_TIMEOUT_SECONDS + 60.0)
    except EngineFailed as error:
        return error.kind
    return "served" if all(len(each) == TOKENS for each in tokens) else "served less"


def _dead(run: EngineRun) -> bool:
    return run.processes.leader.poll() is not None or "EngineDeadError" in run.log


def _continue(pid: int) -> None:
    try:
        os.kill(pid, signal.SIGCONT)
    except ProcessLookupError:
        return


def _compile_the_spin(directory: Path) -> None:
    source = directory / "spin.c"
    source.write_text(delays.SPIN)
    target = str(delays.library(directory))
    subprocess.run(["cc", "-O1", "-shared", "-fPIC", "-o", target, str(source)], check=True)
