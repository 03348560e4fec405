"""What the demo shows, from what was seen: the hang, the guarded run, and the audits."""

from __future__ import annotations

import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import msgspec

from graphguard import manifest
from graphguard.audit import Finding, audit, load
from graphguard.demo.processes import RankReport, RunReport, run_ranks
from graphguard.manifest import Manifest

TOLERANCE = 1e-9
"""How far double precision may be from the eager run: padding changes the order of sums."""

Progress = Callable[[str], None]


class Stand(msgspec.Struct):
    """Where a rank stood when it no longer moved."""

    rank: int
    step: str
    doing: str
    stack: list[str]


class Unguarded(msgspec.Struct):
    """The run without a guard."""

    outcome: str
    seconds: float
    waited_seconds: float
    ranks: list[Stand]
    wrong_outputs: int


class StepResult(msgspec.Struct):
    """What every rank did in one step, and how far its output was from the eager run's."""

    batch: str
    role: str
    verdicts: list[str]
    difference: float


class Guarded(msgspec.Struct):
    """The run with the guard."""

    outcome: str
    seconds: float
    steps: list[StepResult]
    equal_to_eager: bool


class Audit(msgspec.Struct):
    """The audit of what the guarded run recorded, and of a copy with a planted difference."""

    recorded: list[Finding]
    planted: list[Finding]


class Story(msgspec.Struct):
    """Everything the demo saw."""

    ranks: int
    unguarded: Unguarded
    guarded: Guarded
    audit: Audit
    manifests: list[str]
    troubles: list[str] = []

    @property
    def as_claimed(self) -> bool:
        """Whether everything came out as graphguard's README says."""
        return (
            self.unguarded.outcome == "hang"
            and self.guarded.outcome == "completed"
            and self.guarded.equal_to_eager
            and not self.audit.recorded
            and bool(self.audit.planted)
        )


def tell(num_ranks: int, bound: float, keep: Path | None, progress: Progress) -> Story:
    """Run the demo.

    Args:
        num_ranks: How many processes.
        bound: Seconds without a word after which a run counts as hanging.
        keep: Where the manifests are left; without it they are deleted.
        progress: Told what happens next, a sentence at a time.
    """
    with tempfile.TemporaryDirectory(prefix="graphguard-demo-") as temporary:
        folder = Path(temporary) if keep is None else keep
        progress(f"unguarded: {num_ranks} processes start, then up to {bound:g} s of silence")
        unguarded = run_ranks(num_ranks, "off", bound=bound)
        progress("guarded: the same steps with mode=enforce")
        recorded = folder / "recorded"
        guarded = run_ranks(num_ranks, "enforce", bound=bound, manifests=recorded)
        progress("audit: the manifests of the guarded run, then a copy with a planted difference")
        findings = Audit([], [])
        if guarded.outcome == "completed":
            planted = plant(recorded, folder / "planted")
            findings = Audit(audit(load([recorded]).manifests), audit(load([planted]).manifests))
        kept = [] if keep is None else sorted(str(p) for p in folder.glob("*/*.json"))
        return Story(
            ranks=num_ranks,
            unguarded=_unguarded(unguarded),
            guarded=_guarded(guarded),
            audit=findings,
            manifests=kept,
            troubles=_troubles(unguarded, "hang") + _troubles(guarded, "completed"),
        )


def plant(recorded: Path, planted: Path) -> Path:
    """Copy manifests, and let rank 1 reduce half as many elements in the last call of a graph."""
    for path in sorted(recorded.glob(manifest.FILE_PATTERN)):
        recording = manifest.read(path)
        manifest.write(_with_other_count(recording) if recording.rank == 1 else recording, planted)
    return planted


def _with_other_count(recording: Manifest) -> Manifest:
    *others, signature = recording.signatures
    *calls, call = signature.collectives
    changed = msgspec.structs.replace(call, count=(call.count or 0) // 2)
    signature = msgspec.structs.replace(signature, collectives=(*calls, changed))
    return msgspec.structs.replace(recording, signatures=(*others, signature))


def _unguarded(run: RunReport) -> Unguarded:
    return Unguarded(
        outcome=run.outcome,
        seconds=round(run.seconds, 2),
        waited_seconds=round(run.waited_seconds, 2),
        ranks=[_stand(rank) for rank in run.ranks],
        wrong_outputs=sum(
            event.get("difference", 0.0) > TOLERANCE for rank in run.ranks for event in rank.events
        ),
    )


def _stand(rank: RankReport) -> Stand:
    step, doing = "", ""
    for event in rank.events:
        if "step" in event:
            step = f"step {event['step']} ({event['batch']}), {event['role']}"
        doing = event.get("does", doing)
    return Stand(rank.rank, step, doing, rank.stack)


def _guarded(run: RunReport) -> Guarded:
    steps: dict[tuple[int, str], StepResult] = {}
    for rank in run.ranks:
        for event in rank.events:
            if "difference" in event:
                place = steps.setdefault(
                    (event["step"], event["role"]),
                    StepResult(event["batch"], event["role"], [], 0.0),
                )
                place.verdicts.append(f"{event['action']} ({event['reason']})")
                place.difference = max(place.difference, event["difference"])
    results = [steps[key] for key in sorted(steps, key=lambda key: (key[0], key[1] != "target"))]
    return Guarded(
        outcome=run.outcome,
        seconds=round(run.seconds, 2),
        steps=results,
        equal_to_eager=bool(results) and all(step.difference <= TOLERANCE for step in results),
    )


def _troubles(run: RunReport, expected: str) -> list[str]:
    if run.outcome == expected:
        return []
    return [
        f"rank {rank.rank} (exit code {rank.exit_code}): " + "\n".join(_last(rank))
        for rank in run.ranks
    ]


def _last(rank: RankReport) -> list[Any]:
    return [*rank.stderr, *rank.events[-1:]]
