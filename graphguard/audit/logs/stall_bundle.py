"""Reading an evidence bundle of a stall: what graphguard said of it, and what it collected.

A bundle comes from another machine, or from somebody else. Every file is bounded and decoded into
types; what does not fit is said and left out.
"""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path
from typing import TypeVar

import msgspec

from graphguard.audit.logs.model import Cause, Evidence, Reading, Strength
from graphguard.watch.evidence import bundle_contents as contents
from graphguard.watch.evidence.bundle_contents import is_bundle_name
from graphguard.watch.evidence.evidence_directory import NotKept, read_regular
from graphguard.watch.stack_traces.stack_model import Frame, ProcessStacks

MAX_BYTES = 32 * 2**20
MAX_STACKS = 1024
MAX_BUNDLES = 4096
MAX_AFTERWARDS = 200

_CAUSES = {
    "ranks-diverged": Cause.RANK,
    "host-stuck": Cause.HOST_STUCK,
    "device": Cause.STALL,
    "process-died": Cause.PROCESS_DIED,
    # A process that is not let run has not come to launch.
    "stopped": Cause.HOST_STUCK,
    "worker-error": Cause.WORKER_ERROR,
    "slow": Cause.SLOW,
    "unknown": Cause.STALL,
}


class Seen(msgspec.Struct, frozen=True):
    """Something that the verdict rests on."""

    what: str
    source: str = ""


class Verdict(msgspec.Struct, frozen=True):
    """What graphguard said of the stall. The fields are those of ``verdict.json``."""

    stall_class: str
    sentence: str = ""
    ranks: tuple[int, ...] = ()
    waiting: tuple[int, ...] = ()
    group: str = ""
    step: int = 0
    role: str = ""
    graph: str = ""
    batch: str = ""
    seconds: float = 0.0
    since: str = ""
    where: str = ""
    evidence: tuple[Seen, ...] = ()
    not_known: tuple[str, ...] = ()


class ActivitySeen(msgspec.Struct, frozen=True):
    """What was in flight in a rank."""

    kind: str
    name: str = ""
    group: str = ""
    step: int = 0
    batch: str = ""
    age_ns: int = 0


class PulseSeen(msgspec.Struct, frozen=True):
    """What a rank was doing."""

    activities: tuple[ActivitySeen, ...] = ()


class ProcessSeen(msgspec.Struct, frozen=True):
    """What the kernel said of a rank's process."""

    state: str = ""


class RankSeen(msgspec.Struct, frozen=True):
    """A rank as it was looked at."""

    rank: int
    pid: int
    host: str = ""
    process: ProcessSeen = ProcessSeen()
    pulse: PulseSeen | None = None
    note: str = ""


class _States(msgspec.Struct, frozen=True):
    states: tuple[RankSeen, ...] = ()


class Index(msgspec.Struct, frozen=True):
    """What the bundle says of itself."""

    job: str = ""
    host: str = ""
    made: str = ""
    seconds: float = 0.0
    graphguard: str = ""
    missing: dict[str, str] = {}


class Afterwards(msgspec.Struct, frozen=True):
    """Something that became of the stall."""

    what: str
    time: str = ""
    sentence: str = ""
    how: str = ""


class StallBundle(msgspec.Struct, frozen=True):
    """An evidence bundle.

    Attributes:
        path: Where it is.
        index: What it says of itself.
        verdict: What graphguard said; None if that is not there.
        ranks: The ranks, as they were looked at.
        stacks: Of their processes.
        problems: What could not be read.
        others: How many older bundles lie beside it.
        afterwards: What became of the stall.
    """

    path: str
    index: Index
    verdict: Verdict | None
    ranks: tuple[RankSeen, ...]
    stacks: tuple[ProcessStacks, ...]
    problems: tuple[str, ...] = ()
    others: int = 0
    afterwards: tuple[Afterwards, ...] = ()

    @property
    def reading(self) -> Reading | None:
        """What the verdict says of the classes of cause."""
        verdict = self.verdict
        if verdict is None or verdict.stall_class not in _CAUSES:
            return None
        sources = [f"{self.path}/{contents.VERDICT}"]
        sources += [seen.source for seen in verdict.evidence if seen.source]
        evidence = tuple(Evidence(0, source) for source in dict.fromkeys(sources))[:3]
        why = verdict.sentence or f"graphguard called it {verdict.stall_class}"
        return Reading(
            cause=_CAUSES[verdict.stall_class],
            why=f"graphguard, while it lasted: {why}",
            evidence=evidence,
            strength=Strength.DIRECT,
        )

    @property
    def log(self) -> Path | None:
        """The end of the log that was collected, if it is there."""
        path = Path(self.path, contents.LOG_TAIL)
        return path if path.is_file() and not path.is_symlink() else None

    def innermost(self, pid: int) -> Frame | None:
        """Return the call that the main thread of a process was in, if its stack is there."""
        for stacks in self.stacks:
            if stacks.pid == pid and stacks.main is not None and stacks.main.frames:
                return stacks.main.frames[0]
        return None

    @property
    def note(self) -> str:
        """What it is, in a line."""
        index = self.index
        others = f"; {self.others} older beside it" if self.others else ""
        return f"bundle: {self.path}, of job {index.job or '?'} on {index.host or '?'}{others}"


def find_stall_bundle(directory: Path) -> StallBundle | None:
    """Return the bundle that a directory is, or the newest that it holds; None if there is none."""
    if _is_bundle(directory):
        return _read(directory, 0)
    try:
        with os.scandir(directory) as entries:
            names = [
                entry.name
                for entry, _ in zip(entries, range(MAX_BUNDLES), strict=False)
                if is_bundle_name(entry.name) and entry.is_dir(follow_symlinks=False)
            ]
    except OSError:
        return None
    found = [name for name in sorted(names) if _is_bundle(directory / name)]
    return _read(directory / found[-1], len(found) - 1) if found else None


def _is_bundle(directory: Path) -> bool:
    return any(os.path.lexists(directory / name) for name in (contents.INDEX, contents.VERDICT))


def _read(directory: Path, others: int) -> StallBundle:
    problems: list[str] = []
    index = _decoded(directory / contents.INDEX, Index, problems)
    verdict = None
    if index is None or "verdict" not in index.missing:
        verdict = _decoded(directory / contents.VERDICT, Verdict, problems)
    states = _decoded(directory / contents.STATES, _States, problems)
    return StallBundle(
        path=str(directory),
        index=index or Index(),
        verdict=verdict,
        ranks=states.states if states is not None else (),
        stacks=tuple(_stacks(directory / contents.STACKS, problems)),
        problems=tuple(problems),
        others=others,
        afterwards=tuple(_afterwards(directory / contents.AFTERWARDS, problems)),
    )


def _stacks(directory: Path, problems: list[str]) -> Iterator[ProcessStacks]:
    if not directory.is_dir() or directory.is_symlink():
        return
    try:
        names = sorted(os.listdir(directory))
    except OSError as error:
        problems.append(f"{directory}: {error.strerror}")
        return
    wanted = [name for name in names if name.removesuffix(".json").isdecimal()]
    for name in [name for name in wanted if name.endswith(".json")][:MAX_STACKS]:
        stacks = _decoded(directory / name, ProcessStacks, problems)
        if stacks is not None:
            yield stacks


def _afterwards(path: Path, problems: list[str]) -> Iterator[Afterwards]:
    if not os.path.lexists(path):
        return
    try:
        lines = read_regular(path, MAX_BYTES, from_end=True).splitlines()
    except NotKept as why:
        problems.append(str(why))
        return
    for line in lines[-MAX_AFTERWARDS:]:
        try:
            yield msgspec.json.decode(line, type=Afterwards)
        except (msgspec.DecodeError, RecursionError, ValueError) as error:  # noqa: PERF203
            problems.append(f"{path} is not what it should be: {error}")
            return


_Decoded = TypeVar("_Decoded")


def _decoded(path: Path, kind: type[_Decoded], problems: list[str]) -> _Decoded | None:
    try:
        return msgspec.json.decode(read_regular(path, MAX_BYTES), type=kind)
    except NotKept as why:
        problems.append(str(why))
    except (msgspec.DecodeError, RecursionError, ValueError) as error:
        problems.append(f"{path} is not what it should be: {error}")
    return None
