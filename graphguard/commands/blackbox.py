"""The command ``graphguard blackbox``."""

from __future__ import annotations

import argparse
import sys
import time
from pathlib import Path

from graphguard.blackbox.choosing import Chosen, Rings, load, nothing_read
from graphguard.blackbox.following import Follower, News
from graphguard.blackbox.merge import Timeline, merge
from graphguard.errors import CommandError
from graphguard.reporters import blackbox as text
from graphguard.reporters import blackbox_json as json
from graphguard.reporters import trace

DEFAULT_LAST = 10
SECONDS_BETWEEN_LOOKS = 0.2


class BlackboxCommand:
    """Show what each rank did last, who is behind, and the first step in which they differ.

    Name the black boxes of all ranks, or the directories that hold them. Their processes may
    still run, or be gone. Of a rank that has several in a directory, the newest is used.
    """

    def prepare_parser(self, parser: argparse.ArgumentParser) -> None:
        """Add the arguments of the command."""
        parser.add_argument(
            "paths",
            nargs="+",
            type=Path,
            metavar="PATH",
            help="a black box, or a directory with blackbox.rank<N>.<pid>.ring",
        )
        parser.add_argument(
            "--last",
            type=_natural,
            metavar="N",
            help=f"the last N steps of each group (default: {DEFAULT_LAST}; with --json, all)",
        )
        parser.add_argument(
            "--json",
            action="store_true",
            help="print JSON: an object for each record, then a summary",
        )
        parser.add_argument(
            "--follow",
            action="store_true",
            help="print new records as they come, until all processes have ended",
        )
        parser.add_argument(
            "--trace",
            type=Path,
            metavar="FILE",
            help="write a Chrome trace too; ui.perfetto.dev and chrome://tracing open it",
        )

    def run(self, args: argparse.Namespace) -> int:
        """Print the black boxes; 1 if there is a difference, a divergence or damage."""
        if args.follow:
            return _Following(args).run()
        chosen = load(args.paths)
        timeline = merge(chosen.boxes)
        _show(timeline, chosen, args)
        return _ended(timeline, chosen, args)


class _Following:
    def __init__(self, args: argparse.Namespace) -> None:
        self._args = args
        self._chosen = Chosen(())

    def run(self) -> int:
        try:
            self._follow()
        except KeyboardInterrupt:
            # As with tail -f, this is how it usually ends. A program still gets its summary.
            if self._args.json or self._args.trace:
                self._finish()
            raise
        return self._finish()

    def _follow(self) -> None:
        follower = Follower(Rings(self._args.paths))
        while True:
            shown = bool(self._chosen.boxes)
            news = follower.look()
            self._chosen = news.chosen
            if shown:
                _tell(news, self._args)
            elif news.chosen.boxes:
                _show(merge(news.chosen.boxes), news.chosen, self._args)
            elif not any(path.is_dir() for path in self._args.paths):
                raise nothing_read(news.chosen)
            sys.stdout.flush()
            if news.ended:
                return
            time.sleep(SECONDS_BETWEEN_LOOKS)

    def _finish(self) -> int:
        timeline = merge(self._chosen.boxes)
        if not self._args.json:
            sys.stdout.write("\n" + text.render(timeline, self._chosen, 0))
        return _ended(timeline, self._chosen, self._args)


def _show(timeline: Timeline, chosen: Chosen, args: argparse.Namespace) -> None:
    if args.json:
        sys.stdout.write(json.records(chosen.boxes, timeline.records(args.last)))
    else:
        last = DEFAULT_LAST if args.last is None else args.last
        sys.stdout.write(text.render(timeline, chosen, last))


def _tell(news: News, args: argparse.Namespace) -> None:
    boxes = news.chosen.boxes
    if args.json:
        sys.stdout.write(json.records(boxes, news.records))
    else:
        sys.stdout.writelines(text.opened(boxes, member) for member in news.opened)
        sys.stdout.writelines(text.event(boxes, member, record) for member, record in news.records)
    if news.missed:
        sys.stderr.write(
            f"graphguard: {news.missed:,} records were overwritten before they could be shown\n"
        )


def _ended(timeline: Timeline, chosen: Chosen, args: argparse.Namespace) -> int:
    """Write what comes last, and return the exit code."""
    if args.json:
        sys.stdout.write(json.summary(timeline, chosen))
    if args.trace:
        try:
            args.trace.write_text(trace.render(chosen.boxes), encoding="utf-8")
        except OSError as error:
            raise CommandError(
                f"cannot write {args.trace}: {error.strerror}", hint="name another file"
            ) from error
    found = (timeline.first_difference, timeline.divergences, timeline.damaged, chosen.unreadable)
    return 1 if any(found) else 0


def _natural(value: str) -> int:
    if not value.isascii() or not value.isdigit() or len(value) > 9:
        raise argparse.ArgumentTypeError(f"{value!r} is not a number of steps")
    return int(value)
