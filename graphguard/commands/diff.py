"""The command ``graphguard diff``."""

from __future__ import annotations

import argparse
import sys
from pathlib import Path

from graphguard.audit.differences import compare
from graphguard.audit.load import LoadedManifest, load
from graphguard.errors import CommandError
from graphguard.reporters import diff


class DiffCommand:
    """Compare two recordings of one program, such as those before and after an upgrade.

    Says which graphs were added, are gone or have changed: their collective calls, their nodes,
    their static tensors and the memory that they reserved. Each rank is compared with the same
    rank. Versions are told, and are no difference by themselves.

    To compare the ranks of one run, which must be alike, use graphguard audit.
    """

    def prepare_parser(self, parser: argparse.ArgumentParser) -> None:
        """Add the arguments of the command."""
        for name, which in (("before", "first"), ("after", "second")):
            parser.add_argument(
                name,
                type=Path,
                metavar=name.upper(),
                help=f"the {which} recording: a manifest, or a directory of manifest.rank<N>.json",
            )
        parser.add_argument("--json", action="store_true", help="print JSON, with all differences")

    def run(self, args: argparse.Namespace) -> int:
        """Print the differences; 1 if there are any."""
        names = str(args.before), str(args.after)
        differences = compare(_loaded(args.before), _loaded(args.after))
        if not differences.ranks:
            raise CommandError(
                f"{names[0]} and {names[1]} have no rank in common",
                hint="name two recordings of one program; two single manifests are compared "
                "whichever ranks they are of",
            )
        render = diff.render_json if args.json else diff.render
        sys.stdout.write(render(differences, names))
        return 1 if differences.any else 0


def _loaded(path: Path) -> list[LoadedManifest]:
    manifests, unreadable = load([path])
    if unreadable:
        # What is not read would look like ranks that are gone.
        raise CommandError(unreadable[0].what, hint=unreadable[0].advice)
    return manifests
