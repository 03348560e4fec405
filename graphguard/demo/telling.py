"""Runs the parts of the demo and tells what was seen."""

from __future__ import annotations

import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import msgspec

from graphguard import manifest
from graphguard.audit import audit, load
from graphguard.blackbox import choosing
from graphguard.blackbox.choosing import Chosen
from graphguard.blackbox.directory import FILE_PATTERN
from graphguard.demo import seen
from graphguard.demo.plan import ODD_RANK
from graphguard.demo.processes import RankReport, RunReport, run_ranks
from graphguard.demo.story import Audit, Story
from graphguard.errors import CommandError
from graphguard.manifest import Manifest

END_SECONDS = 15.0
"""How long ranks may be silent that diverged, or have lost one of them, before it is a hang."""

Progress = Callable[[str], None]


def tell(num_ranks: int, bound: float, keep: Path | None, progress: Progress) -> Story:
    """Run the demo.

    Args:
        num_ranks: How many processes.
        bound: Seconds without a word after which a run counts as hanging.
        keep: Where the manifests and black boxes are left; without it they are deleted.
        progress: Told what happens next, a sentence at a time.
    """
    with tempfile.TemporaryDirectory(prefix="graphguard-demo-") as temporary:
        folder = Path(temporary) if keep is None else keep
        runs = _Runs(num_ranks, bound, folder)
        progress(f"unguarded: {num_ranks} processes start, then up to {bound:g} s of silence")
        unguarded = seen.unguarded(runs.run("unguarded", expected="hang"))
        progress("guarded: the same steps with mode=enforce, then a static tensor moves")
        guarded = seen.guarded(*runs.recorded("guarded", expected="completed"))
        progress("audit: the manifests of the guarded run, then a copy with a planted difference")
        findings = Audit([], [])
        if guarded.outcome == "completed":
            findings = _audits(folder / "guarded", folder / "planted")
        progress(f"divergence: rank {ODD_RANK} skips a launch that the others have begun")
        diverging = seen.diverging(*runs.recorded("diverging", expected="ended"))
        progress(f"black box: rank {ODD_RANK} is killed in the middle of a replay")
        killed = seen.killed(*runs.recorded("killed", expected="ended"))
        return Story(
            ranks=num_ranks,
            unguarded=unguarded,
            guarded=guarded,
            audit=findings,
            diverging=diverging,
            killed=killed,
            manifests=[] if keep is None else _files(folder, manifest.FILE_PATTERN),
            black_boxes=[] if keep is None else _files(folder, FILE_PATTERN),
            troubles=runs.troubles,
        )


class _Runs:
    """The runs of the demo.

    Attributes:
        troubles: What did not come out as expected, in the words of the ranks.
    """

    def __init__(self, num_ranks: int, bound: float, folder: Path) -> None:
        self.troubles: list[str] = []
        self._num_ranks = num_ranks
        self._bound = bound
        self._folder = folder

    def run(self, part: str, expected: str) -> RunReport:
        ends = expected == "ended"
        run = run_ranks(
            self._num_ranks,
            part,
            bound=max(self._bound, END_SECONDS) if ends else self._bound,
            directory=self._folder / part,
            all_succeed=not ends,
        )
        if run.outcome != expected:
            self.troubles += [
                f"{part}: rank {rank.rank} (exit code {rank.exit_code}): "
                + "\n".join(map(str, _last(rank)))
                for rank in run.ranks
            ]
        return run

    def recorded(self, part: str, expected: str) -> tuple[RunReport, Chosen]:
        """Run a part and read the black boxes that it leaves, as ``graphguard blackbox`` does."""
        run = self.run(part, expected)
        try:
            chosen = choosing.load([self._folder / part])
        except CommandError as error:
            self.troubles.append(f"{part}: {error.message}")
            return run, Chosen(())
        return run, seen.boxes_of(run, chosen)


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


def _audits(recorded: Path, planted: Path) -> Audit:
    plant(recorded, planted)
    return Audit(audit(load([recorded]).manifests), audit(load([planted]).manifests))


def _files(folder: Path, pattern: str) -> list[str]:
    return sorted(map(str, folder.glob(f"*/{pattern}")))


def _last(rank: RankReport) -> list[Any]:
    return [*rank.stderr, *rank.events[-1:]]
