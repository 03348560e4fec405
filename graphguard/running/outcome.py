"""What a run has left behind: how it ended, what was recorded, and what is wrong with that."""

from __future__ import annotations

from pathlib import Path

import msgspec

from graphguard.audit import Coverage, Finding, LoadedManifest, audit, coverage, load
from graphguard.audit.catalogue import finding
from graphguard.blackbox import choosing
from graphguard.blackbox.choosing import Chosen
from graphguard.blackbox.directory import is_ring_name
from graphguard.blackbox.merge import Timeline, merge
from graphguard.errors import CommandError
from graphguard.manifest import FILE_PATTERN
from graphguard.running import processes
from graphguard.running.processes import Reached


class Outcome(msgspec.Struct, frozen=True):
    """How a run ended and what it left.

    Attributes:
        exit_code: Of the program; 128 plus the number of the signal that ended it.
        directory: Where manifests and black boxes are.
        reached: The Python processes that it started.
        manifests: The manifests that were read.
        findings: What the audit of them found.
        boxes: The black boxes; None if there are none.
        timeline: What they tell together; None if there are none.
    """

    exit_code: int
    directory: Path
    reached: Reached
    manifests: tuple[LoadedManifest, ...]
    findings: tuple[Finding, ...]
    boxes: Chosen | None
    timeline: Timeline | None

    @property
    def coverage(self) -> Coverage:
        """What the audit looked at."""
        return coverage(self.manifests)

    @property
    def found(self) -> bool:
        """Whether the manifests or the black boxes have something to look at."""
        if self.findings:
            return True
        timeline, boxes = self.timeline, self.boxes
        if timeline is None or boxes is None:
            return False
        told = (timeline.first_difference, timeline.divergences, timeline.damaged)
        return any(told) or bool(boxes.unreadable)


def outcome(exit_code: int, directory: Path) -> Outcome:
    """Read what a run has left in its directory.

    Raises:
        OSError: If the directory is gone or cannot be read.
    """
    manifests, findings = _manifests(directory)
    boxes = _boxes(directory)
    return Outcome(
        exit_code=exit_code,
        directory=directory,
        reached=processes.read(directory / processes.DIRECTORY),
        manifests=manifests,
        findings=findings,
        boxes=boxes,
        timeline=None if boxes is None else merge(boxes.boxes),
    )


def _manifests(directory: Path) -> tuple[tuple[LoadedManifest, ...], tuple[Finding, ...]]:
    files = tuple(str(path) for path in sorted(directory.glob(FILE_PATTERN)))
    if not files:
        return (), ()
    try:
        manifests, unreadable = load([directory])
    except CommandError as error:
        # Not one of them can be read. That is what is wrong with this run.
        return (), (finding("unreadable-manifest", (), error.message, evidence=files),)
    return tuple(manifests), (*unreadable, *audit(manifests))


def _boxes(directory: Path) -> Chosen | None:
    if not any(is_ring_name(path.name) for path in directory.iterdir()):
        return None
    return choosing.Rings([directory]).read()
