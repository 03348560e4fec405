"""Looks at a run: who knew of the fault and when, who was blamed, and how it ended."""

from __future__ import annotations

import re
from collections.abc import Iterator

import msgspec

from graphguard.agreement.watcher import STUCK_EXIT_CODE
from tests.faults.events import Event
from tests.faults.expected import End, Fault, Side
from tests.faults.harness import RankRun, Run
from tests.faults.job import HANG_EXIT_CODE
from tests.faults.rank import RAISED_EXIT_CODE

_FINAL = {"captures-differ", "refused", "peer-refused", "peer-gone", "vote-timed-out", "damaged"}
"""What a rank that enforces is told of once. What comes after it comes from it."""

_NAMES_RANKS = {"peer-gone", "vote-timed-out"}
"""Reports that say it of the ranks that they name. Others put the sides next to each other."""

_SIDE = re.compile(r"\branks? (\d[\d, -]*): (nothing yet|not to be read any more)?")
_COULD_NOT = re.compile(r"\brank (\d+) of \S+ could not capture")
_BEHIND = re.compile(r"\bsteps ahead of ranks? (\d[\d, -]*) of")


class Judged(msgspec.Struct, frozen=True, kw_only=True):
    """What came out of one run. Times are in seconds from when the ranks differed.

    Attributes:
        fault: The name of the fault.
        mode: The mode of the guards.
        room: Where it went wrong.
        ranks: How many ranks there were.
        odd: The rank that did something else than the others.
        decidable: Whether the fault can be seen before the launch.
        silent: Whether nothing may be said of it.
        problems: What did not come out as it should.
        knew: When each rank that learnt of it did.
        stopped: Whether it was seen before any launch that differs, where it can be.
        ends: How each rank ended.
        ended: When the last rank ended that was not to finish.
        blame: ``right``, ``wrong``, or ``nobody``.
    """

    fault: str
    mode: str
    room: str
    ranks: int
    odd: int
    decidable: bool
    silent: bool
    problems: list[str]
    knew: dict[int, float]
    stopped: bool | None
    ends: list[str]
    ended: float | None
    blame: str


def judge(fault: Fault, outcome: Run) -> Judged:
    """Compare what became of a run with what should have."""
    run = _Run(fault, outcome)
    return Judged(
        fault=fault.name,
        mode=fault.mode,
        room=fault.room,
        ranks=len(outcome.ranks),
        odd=fault.odd,
        decidable=fault.expected.decidable,
        silent=fault.expected.silent,
        problems=list(run.problems()),
        knew=run.knew,
        stopped=run.stopped if fault.expected.decidable else None,
        ends=[str(end.value) for end in run.ends],
        ended=run.ended,
        blame=run.blame,
    )


class _Run:
    def __init__(self, fault: Fault, outcome: Run) -> None:
        self._fault = fault
        self._outcome = outcome
        self._runs = runs = outcome.ranks
        self.ends = [_end(run) for run in runs]
        times = [e.time for run in runs for e in run.events if e.kind == "fault"]
        began = [e.time for run in runs for e in run.events[:1]]
        self._began = min(times or began, default=0.0)
        self.knew = dict(self._knowledge())
        self.stopped = self._stopped()
        stops = [runs[r].ended for r, e in enumerate(self.ends) if e in (End.RAISED, End.ENDED)]
        self.ended = max(stops) - self._began if stops else None
        self.blame = self._blame()

    def problems(self) -> Iterator[str]:
        for rank in range(len(self._runs)):
            yield from self._side_problems(rank, self._side(rank))
        if self._fault.expected.decidable and not self.stopped:
            yield f"it was not stopped before the launch: {self._launches()}"
        if self.blame == "wrong":
            yield f"a rank is blamed that did nothing: {sorted(self._blamed())}"
        if self._outcome.left_behind:
            yield f"left behind: {self._outcome.left_behind}"
        yield from self._box_problems()

    def _box_problems(self) -> Iterator[str]:
        """Compare what the black boxes say with where the ranks differed."""
        found = self._outcome.first_difference
        steps = [e.fields["step"] for run in self._runs for e in run.events if e.kind == "fault"]
        expected = steps[0] if self._fault.in_boxes else None
        if self._fault.room != "capture" and found != expected:
            yield f"the black boxes differ from step {found}, not from {expected}"

    def _side(self, rank: int) -> Side:
        expected = self._fault.expected
        return expected.faulty if rank == self._fault.odd else expected.others

    def _side_problems(self, rank: int, side: Side) -> Iterator[str]:
        run, end = self._runs[rank], self.ends[rank]
        if side.end not in (End.ANY, end):
            yield f"rank {rank}: {end.value} ({run.status}), not {side.end.value}"
        kinds = [report.fields["kind"] for report in self._reports(rank)]
        if side.told and not set(kinds) & set(side.told):
            yield f"rank {rank}: was told of {kinds or 'nothing'}, not of {side.told}"
        if unexpected := set(kinds) - {*side.told, *side.also}:
            yield f"rank {rank}: was told of {sorted(unexpected)}"
        if side.error and [e.fields["error"] for e in _of(run, "raised")] != [side.error]:
            yield f"rank {rank}: raised {_of(run, 'raised')}, not {side.error}"
        if side.log and not any(side.log in e.fields["text"] for e in _of(run, "log")):
            yield f"rank {rank}: the log does not say {side.log!r}"
        if side.end is End.FINISHED and not all(e.fields["right"] for e in _of(run, "returned")):
            yield f"rank {rank}: a result is wrong"

    def _reports(self, rank: int) -> Iterator[Event]:
        """Return what a rank was told, without what came of its being told."""
        hung = [
            run.ended for run, end in zip(self._runs, self.ends, strict=True) if end is End.HUNG
        ]
        for report in _of(self._runs[rank], "report"):
            if report.time > min(hung, default=report.time):
                return  # that a rank has ended which the harness has ended
            yield report
            if self._fault.mode == "enforce" and report.fields["kind"] in _FINAL:
                return

    def _knowledge(self) -> Iterator[tuple[int, float]]:
        for rank, run in enumerate(self._runs):
            log = self._side(rank).log
            times = [report.time for report in self._reports(rank)]
            times += [e.time for e in _of(run, "raised") if e.fields["ours"]]
            times += [e.time for e in _of(run, "log") if log and log in e.fields["text"]]
            if times:
                yield rank, max(0.0, min(times) - self._began)

    # ---- launches -------------------------------------------------------------------------------

    def _launches(self) -> dict[int, dict[str, list[int]]]:
        """Return who launched what, for each step in which not all did the same."""
        launched: dict[int, dict[str, list[int]]] = {}
        for rank, run in enumerate(self._runs):
            for event in _of(run, "launch"):
                step = launched.setdefault(event.fields["step"], {})
                step.setdefault(event.fields["what"], []).append(rank)
        return {step: sides for step, sides in launched.items() if len(sides) > 1}

    def _stopped(self) -> bool:
        if self._fault.mode == "observe":
            return any(map(_knew_before_its_launch, self._runs))
        if self._launches():
            return False
        for rank, run in enumerate(self._runs):
            for raised in _of(run, "raised"):
                steps = [e.fields["step"] for e in _of(run, "launch")]
                if raised.fields["error"] == "RanksDiverged" and raised.fields["step"] in steps:
                    return False
            late = [e for e in _of(run, "launch") if e.time > self._began]
            if late and not self._fault.expected.launches:
                return False
            del rank
        return True

    # ---- blame ----------------------------------------------------------------------------------

    def _blame(self) -> str:
        blamed = self._blamed()
        if not blamed:
            return "nobody"
        return "right" if blamed == {self._fault.odd} else "wrong"

    def _blamed(self) -> set[int]:
        """Return whom ranks name; not the odd one, which all others are gone for, or missing."""
        blamed: set[int] = set()
        for rank, run in enumerate(self._runs):
            if rank == self._fault.odd:
                continue
            for report in self._reports(rank):
                if report.fields["kind"] in _NAMES_RANKS:
                    blamed.update(report.fields["ranks"])
                else:
                    blamed |= _minority(report.fields["text"], len(self._runs))
            for raised in _of(run, "raised"):
                if raised.fields["error"] == "RankMissing":
                    blamed.update(raised.fields["ranks"])
                for pattern in (_COULD_NOT, _BEHIND):
                    blamed.update(*map(_numbers, pattern.findall(raised.fields["message"])))
        return blamed


def went_wrong(outcome: Run) -> bool:
    """Whether a run hung, crashed, or computed something wrong."""
    ends = {_end(run) for run in outcome.ranks}
    results = [e.fields["right"] for run in outcome.ranks for e in _of(run, "returned")]
    return bool(ends & {End.HUNG, End.CRASHED}) or not all(results)


def _of(run: RankRun, kind: str) -> list[Event]:
    return [event for event in run.events if event.kind == kind]


def _end(run: RankRun) -> End:
    if run.bounded or run.status == HANG_EXIT_CODE:
        return End.HUNG
    finished = any(event.kind == "finished" for event in run.events)
    ends = {
        0: End.FINISHED if finished else End.CRASHED,
        RAISED_EXIT_CODE: End.RAISED,
        STUCK_EXIT_CODE: End.ENDED,
        -9: End.KILLED,
    }
    return ends.get(run.status, End.CRASHED)


def _knew_before_its_launch(run: RankRun) -> bool:
    """Whether a rank was told of a step, or of captures, before it launched that step."""
    for place, event in enumerate(run.events):
        if event.kind == "report" and event.fields["kind"] in ("differs", "captures-differ"):
            step = event.fields["step"]
            before = [e.fields["step"] for e in run.events[:place] if e.kind == "launch"]
            if step not in before and (step or not before):
                return True
    return False


def _minority(text: str, ranks: int) -> set[int]:
    """Return the ranks that a text puts against a strict majority of all ranks."""
    # Of captures that differ, each line after the first is one difference.
    _, *lines = text.split("\n") if "\n" in text else ("", text)
    blamed: set[int] = set()
    for line in lines:
        sides = [_numbers(listed) for listed, absent in _SIDE.findall(line) if not absent]
        if sides and 2 * len(sides[0]) > ranks:
            blamed.update(*sides[1:])
    return blamed


def _numbers(listed: str) -> set[int]:
    """Return the ranks of a list: ``0, 2-3``."""
    numbers: set[int] = set()
    for run in listed.split(","):
        first, _, last = run.strip().partition("-")
        numbers.update(range(int(first), int(last or first) + 1))
    return numbers
