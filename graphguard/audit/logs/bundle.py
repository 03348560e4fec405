"""What was recorded beside a log: manifests, black boxes, evidence of a stall."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import msgspec

from graphguard import manifest
from graphguard.audit import Severity, audit
from graphguard.audit import load as load_manifests
from graphguard.audit.logs.model import Cause, Evidence, Reading, Strength
from graphguard.audit.logs.reasoning import Readings
from graphguard.audit.logs.stall_bundle import StallBundle, find_stall_bundle
from graphguard.blackbox import choosing
from graphguard.blackbox.directory import is_ring_name
from graphguard.blackbox.merge import Timeline, merge
from graphguard.errors import CommandError, GraphguardError

MAX_DEPTH = 3
MAX_FILES = 4096
_MORE_FILES = "and others like it"


class Bundle(msgspec.Struct, frozen=True, kw_only=True):
    """What the files of a bundle say.

    Attributes:
        different: That ranks recorded different things, and where; None if nothing says so.
        same: That all ranks launched the same up to the end; None if that was not compared.
        notes: What was read.
        stall: The evidence that graphguard collected of a stall, if it did.
    """

    different: Reading | None
    same: Reading | None
    notes: tuple[str, ...]
    stall: StallBundle | None = None

    def decided(self, readings: Readings) -> Readings:
        """Return what a log supports and excludes, with what the bundle decides."""
        told = self.stall.reading if self.stall is not None else None
        supports = tuple(each for each in (told, self.different) if each is not None)
        named = {each.cause for each in supports}
        excludes = (self.same,) if self.same is not None and self.same.cause not in named else ()
        named |= {each.cause for each in excludes}
        supported, excluded, undecided = (
            tuple(each for each in group if each.cause not in named) for group in readings
        )
        if told is not None and self.different is not None and told.cause is self.different.cause:
            supports = (told,)
        return Readings((*supports, *supported), (*excludes, *excluded), undecided)


def read_bundle(directory: Path) -> Bundle:
    """Read the manifests, black boxes and evidence of a stall in a directory and those below it.

    Raises:
        CommandError: If it is no directory, or holds none.
    """
    if not directory.is_dir():
        raise CommandError(f"{directory} is not a directory", hint="name the evidence bundle")
    stall = find_stall_bundle(directory)
    # It holds copies of what may lie beside it, of the moment that it is about.
    files = list(_files(directory if stall is None else Path(stall.path)))
    rings = [path for path in files if is_ring_name(path.name)]
    manifests = [path for path in files if path.match(manifest.FILE_PATTERN)]
    if not rings and not manifests and stall is None:
        raise CommandError(
            f"{directory} holds no manifest, no black box and no evidence of a stall",
            hint="name the GRAPHGUARD_DIR of the engine, or what graphguard collected of a stall",
        )
    notes: list[str] = [stall.note] if stall is not None else []
    captured = _captured(manifests, notes)
    launched = _launched(rings, notes)
    different = captured or (launched if launched is not None and launched.strength else None)
    same = launched if different is None and launched is not None else None
    return Bundle(different=different, same=same, notes=tuple(notes), stall=stall)


def _files(directory: Path, depth: int = 0) -> Iterator[Path]:
    try:
        entries = sorted(directory.iterdir())[:MAX_FILES]
    except OSError as error:
        raise CommandError(
            f"cannot list {directory}: {error.strerror}", hint="check its permissions"
        ) from error
    for path in entries:
        if path.is_dir() and not path.is_symlink():
            if depth < MAX_DEPTH:
                yield from _files(path, depth + 1)
        else:
            yield path


def _captured(paths: list[Path], notes: list[str]) -> Reading | None:
    """Return that the ranks captured different collectives, or None."""
    if not paths:
        return None
    try:
        loaded, unreadable = load_manifests(paths)
    except GraphguardError as error:
        notes.append(f"bundle: {error.message}")
        return None
    errors = [each for each in audit(loaded) if each.severity is Severity.ERROR]
    notes.append(
        f"bundle: {len(loaded)} manifest(s) compared, {len(errors)} difference(s); "
        f"{len(unreadable)} not readable"
    )
    if not errors:
        return None
    what = errors[0].what
    evidence = tuple(Evidence(0, file) for file in errors[0].evidence[:4])
    return Reading(cause=Cause.RANK, why=what, evidence=evidence, strength=Strength.DIRECT)


def _launched(paths: list[Path], notes: list[str]) -> Reading | None:
    """Return what the black boxes say of what the ranks launched, or None."""
    if not paths:
        return None
    try:
        chosen = choosing.load(paths)
    except GraphguardError as error:
        notes.append(f"bundle: {error.message}")
        return None
    seen = merge(chosen.boxes)
    notes.append(
        f"bundle: {len(seen.boxes)} black box(es) read, {len(chosen.unreadable)} not readable"
    )
    evidence = tuple(Evidence(0, box.path) for box in seen.boxes[:4])
    if (difference := seen.first_difference) is not None:
        why = f"the ranks differ first in step {difference.step} of group {difference.group}"
        return Reading(cause=Cause.RANK, why=why, evidence=evidence, strength=Strength.DIRECT)
    if seen.divergences:
        why = f"the ranks recorded {len(seen.divergences)} divergence(s) themselves"
        return Reading(cause=Cause.RANK, why=why, evidence=evidence, strength=Strength.DIRECT)
    return _all_the_same(seen, evidence)


def _all_the_same(seen: Timeline, evidence: tuple[Evidence, ...]) -> Reading | None:
    compared = [each for each in seen.comparisons if each.steps]
    if not compared or any(standing.behind for standing in seen.standings):
        return None
    steps = sum(each.steps for each in compared)
    why = f"the black boxes of {len(seen.boxes)} ranks say the same in all {steps} steps"
    return Reading(cause=Cause.RANK, why=why, evidence=evidence)
