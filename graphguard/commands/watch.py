"""The command ``graphguard watch``."""

from __future__ import annotations

import argparse
import math
import sys
import time
from pathlib import Path

from graphguard import environment
from graphguard.blackbox.directory import FILE_PATTERN, default_directory
from graphguard.errors import CommandError
from graphguard.reporters import watch as text
from graphguard.reporters import watch_json as json
from graphguard.reporters.live import Screen
from graphguard.watch.looking.ranks import Ranks
from graphguard.watch.looking.view import View, Watched
from graphguard.watch.verdicts.finding import job_of, ring_of

DEFAULT_INTERVAL = 0.5
LEAST_INTERVAL, MOST_INTERVAL = 0.05, 3600.0
LOOKS_PER_SEARCH = 20
"""How often the ranks of a job are looked at before those of its processes are searched for
that have opened their black box since."""


class WatchCommand:
    """Show what every rank of a job is doing right now, and its stalls.

    Name the directory of the black boxes, or a process of the job: the others are found. Without
    either it is GRAPHGUARD_DIR, or the directory of the user. It ends with the job, or by Ctrl-C.
    """

    def prepare_parser(self, parser: argparse.ArgumentParser) -> None:
        """Add the arguments of the command."""
        parser.add_argument(
            "targets",
            nargs="*",
            metavar="DIR|PID",
            help="a directory with blackbox.rank<N>.<pid>.ring, such a file, or a process",
        )
        parser.add_argument(
            "--once",
            action="store_true",
            help="look once; exit code 1 if a rank is stalled, stopped, or gone without a word",
        )
        parser.add_argument(
            "--json", action="store_true", help="print JSON: an object for each look, one a line"
        )
        parser.add_argument(
            "--interval",
            type=_seconds,
            default=DEFAULT_INTERVAL,
            metavar="S",
            help=f"seconds between looks (default: {DEFAULT_INTERVAL})",
        )

    def run(self, args: argparse.Namespace) -> int:
        """Show the ranks; 1 if at the last look there was trouble."""
        job = _Job(args.targets or [_default()])
        if args.once:
            view = job.look()
            if not view.ranks:
                raise _nothing(view.where)
            _show(view, args, Screen(whole=False))
            return int(view.trouble)
        return _live(job, args)


class _Job:
    """What was named, and the ranks that belong to it."""

    def __init__(self, targets: list[str]) -> None:
        self._rings = [ring_of(int(each)) for each in targets if _is_pid(each)]
        paths = [Path(each) for each in targets if not _is_pid(each)]
        for path in paths:
            if not path.exists():
                raise CommandError(
                    f"{path} is not there", hint="name a directory of black boxes, or a process"
                )
        folders = dict.fromkeys([*paths, *(ring.parent for ring in self._rings)])
        self._ranks = Ranks(folders, self._pids(), first=None, max_threads=0)
        self._watched = Watched(self._ranks, ", ".join(map(str, folders)))
        self._waits = any(path.is_dir() for path in paths)
        self._looks = 0

    @property
    def waits(self) -> bool:
        """Whether ranks may be yet to come: a directory was named."""
        return self._waits

    def look(self) -> View:
        if self._rings and self._looks % LOOKS_PER_SEARCH == LOOKS_PER_SEARCH - 1:
            pids = self._pids()
            if pids is not None:
                self._ranks.only(pids)
        self._looks += 1
        return self._watched.look()

    def _pids(self) -> frozenset[int] | None:
        """Return the processes that are shown; None for all where a directory was named."""
        if not self._rings:
            return None
        pids: frozenset[int] = frozenset()
        for ring in self._rings:
            pids |= job_of(ring)
        return pids


def _live(job: _Job, args: argparse.Namespace) -> int:
    view: View | None = None
    try:
        with Screen(whole=not args.json) as screen:
            while True:
                view = job.look()
                if not view.ranks and not job.waits:
                    raise _nothing(view.where)
                _show(view, args, screen)
                if view.ended:
                    break
                time.sleep(args.interval)
    except KeyboardInterrupt:
        # As with top, this is how it usually ends.
        pass
    if view is None:
        return 0
    if not args.json and screen.took_over:
        # What was drawn is gone with the screen it was drawn on.
        _show(view, args, Screen(whole=False))
    return int(view.trouble)


def _show(view: View, args: argparse.Namespace, screen: Screen) -> None:
    if args.json:
        sys.stdout.write(json.render(view))
        sys.stdout.flush()
    else:
        screen.draw(lambda width, height: text.lines(view, width, height))


def _default() -> str:
    return str(environment.directory() or default_directory())


def _nothing(where: str) -> CommandError:
    return CommandError(
        f"no black box could be read in {where}",
        hint=f"name a directory with {FILE_PATTERN}, or a process that has a black box",
    )


def _is_pid(target: str) -> bool:
    return target.isascii() and target.isdigit() and len(target) <= len(str(2**22))


def _seconds(value: str) -> float:
    try:
        seconds = float(value)
    except ValueError:
        seconds = math.nan
    if not LEAST_INTERVAL <= seconds <= MOST_INTERVAL:
        raise argparse.ArgumentTypeError(
            f"{value!r} is no number of seconds between {LEAST_INTERVAL} and {MOST_INTERVAL:g}"
        )
    return seconds
