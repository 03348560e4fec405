"""Which black boxes are those of a job: one for each of its processes."""

from __future__ import annotations

import os
from collections.abc import Iterable, Sequence
from typing import TYPE_CHECKING, NamedTuple

import msgspec

from graphguard.blackbox import reading
from graphguard.blackbox.directory import FILE_PATTERN, is_ring_name
from graphguard.blackbox.reading import Box, Glance
from graphguard.errors import BlackBoxError, BlackBoxNotReady, CommandError

if TYPE_CHECKING:
    from pathlib import Path


class LeftOut(msgspec.Struct, frozen=True):
    """A file that is not looked at, and why."""

    path: str
    why: str


class Chosen(msgspec.Struct, frozen=True):
    """The black boxes of a job.

    Attributes:
        boxes: One for each process, by rank and host, and by when it was opened.
        left_out: Black boxes of other processes that lie beside them.
        unreadable: Files that are damaged, or no black boxes.
    """

    boxes: tuple[Box, ...]
    left_out: tuple[LeftOut, ...] = ()
    unreadable: tuple[LeftOut, ...] = ()


class Rings:
    """Rings in files and directories, which are read again only where something has changed.

    Args:
        paths: Ring files, which are used whatever else is there, or directories that hold
            ``blackbox.rank<N>.<pid>.ring``. Of the rings of a rank in directories, the newest is
            used. A file that is named twice is read once.
    """

    def __init__(self, paths: Iterable[Path]) -> None:
        self._paths = tuple(paths)
        self._seen: dict[str, tuple[Glance, Box]] = {}

    def read(self) -> Chosen:
        """Read what is there now.

        Raises:
            CommandError: If a directory cannot be listed.
        """
        named: list[Box] = []
        found: list[Box] = []
        empty: list[LeftOut] = []
        unreadable: list[LeftOut] = []
        for file, by_name in self._files():
            box = self._box(file)
            if isinstance(box, BlackBoxNotReady):
                empty.append(LeftOut(str(file), "empty: its process is opening it, or was ended"))
            elif isinstance(box, BlackBoxError):
                unreadable.append(LeftOut(str(file), box.message))
            else:
                (named if by_name else found).append(box)
        newest, left_out = newest_of_ranks(found, named)
        boxes = sorted([*named, *newest], key=lambda box: (box.rank, box.host, box.started_ns))
        return Chosen(tuple(boxes), (*left_out, *empty), tuple(unreadable))

    def _files(self) -> list[tuple[Path, bool]]:
        """Return every ring file once, and whether it was named itself."""
        files: dict[str, tuple[Path, bool]] = {}
        for path in sorted(self._paths, key=os.path.isdir):
            directory = os.path.isdir(path)
            for file in ring_files(path) if directory else (path,):
                files.setdefault(os.path.realpath(file), (file, not directory))
        return list(files.values())

    def _box(self, file: Path) -> Box | BlackBoxError:
        try:
            glance = reading.glance(file)
            before = self._seen.get(str(file))
            if before is not None and before[0] == glance and not before[1].writing:
                return before[1]
            box = reading.read(file)
        except BlackBoxError as error:
            return error
        self._seen[str(file)] = (glance, box)
        return box


def load(paths: Sequence[Path]) -> Chosen:
    """Read ring files, and those in directories.

    Raises:
        CommandError: If a directory holds no ring, or if none could be read.
    """
    for path in paths:
        if os.path.isdir(path) and not ring_files(path):
            raise CommandError(
                f"{path} holds no black box ({FILE_PATTERN})",
                hint="name the directory that GRAPHGUARD_DIR was set to, or where the log says "
                "that the black box is",
            )
    chosen = Rings(paths).read()
    if not chosen.boxes:
        raise nothing_read(chosen)
    return chosen


def nothing_read(chosen: Chosen) -> CommandError:
    """Return the error for that no black box could be read."""
    files = [*(file.why for file in chosen.unreadable), *(file.path for file in chosen.left_out)]
    if not files:
        return CommandError("no black box was named", hint="name a ring or a directory of them")
    more = f" (and {len(files) - 1} more like it)" if len(files) > 1 else ""
    return CommandError(
        f"no black box could be read: {files[0]}{more}",
        hint=f"name a ring ({FILE_PATTERN}) or a directory of them",
    )


class _Place(NamedTuple):
    host: str
    rank: int


def newest_of_ranks(found: Iterable[Box], named: Iterable[Box]) -> tuple[list[Box], list[LeftOut]]:
    """Return the newest ring of each rank, and those that are none.

    Args:
        found: Rings of any processes.
        named: Rings that are used whatever else is there.
    """
    ordered = sorted(found, key=lambda box: (box.started_ns, box.pid, box.path), reverse=True)
    used: dict[_Place, Box] = {_Place(box.host, box.rank): box for box in named}
    newest: list[Box] = []
    left_out: list[LeftOut] = []
    for box in ordered:
        place = _Place(box.host, box.rank)
        if place in used:
            other = used[place]
            why = f"rank {box.rank}, pid {box.pid}: {other.path} is used, of pid {other.pid}"
        elif box.world_size != ordered[0].world_size:
            why = (
                f"rank {box.rank} of a job of {box.world_size}: the newest ring is of a job of "
                f"{ordered[0].world_size}"
            )
        else:
            used[place] = box
            newest.append(box)
            continue
        left_out.append(LeftOut(box.path, why))
    return newest, left_out


def ring_files(directory: Path) -> Sequence[Path]:
    """Return the ring files of a directory.

    Raises:
        CommandError: If it cannot be listed.
    """
    try:
        # Listed and not globbed: a directory that cannot be read must not look like an empty one.
        names = os.listdir(directory)
    except OSError as error:
        raise CommandError(
            f"cannot list {directory}: {error.strerror}", hint="check its permissions"
        ) from error
    return [directory / name for name in sorted(names) if is_ring_name(name)]
