"""The command ``graphguard demo``."""

from __future__ import annotations

import argparse
import importlib.util
import sys
from pathlib import Path

from graphguard.errors import CommandError

MAX_RANKS = 8


class DemoCommand:
    """Show a hang that really happens, the same steps guarded, and what is left of a killed rank.

    Starts real processes with real collectives (gloo) that serve a small tensor-parallel model
    with a drafter: steps of 16x2 and 15x2, then one of 15x1. Unguarded, rank 0 replays the graph
    of the nearest size while the others run eagerly, and all of them hang; the demo waits a
    bounded time, shows where each rank stands and ends what it started. Guarded, the same steps
    finish and their outputs equal those of an all-eager run. Then the recorded manifests are
    audited, and a copy with a planted difference.

    Two more runs end before their last step. In one, a rank would launch something else than the
    others have launched: it is refused, and they are ended within seconds. In the other, a rank is
    killed in the middle of a replay, and the black boxes of all ranks are read.

    Ends with 0 if everything came out that way, and with 1 if not.
    """

    def prepare_parser(self, parser: argparse.ArgumentParser) -> None:
        """Add the arguments of the command."""
        parser.add_argument("--json", action="store_true", help="print JSON")
        parser.add_argument(
            "--ranks", type=int, default=2, metavar="N", help="how many processes (default: 2)"
        )
        parser.add_argument(
            "--bound",
            type=float,
            default=5.0,
            metavar="SECONDS",
            help="silence after which a run counts as hanging (default: 5)",
        )
        parser.add_argument(
            "--keep", type=Path, metavar="DIR", help="leave manifests and black boxes here"
        )

    def run(self, args: argparse.Namespace) -> int:
        """Run the demo; 1 if it did not come out as it should."""
        _require(args)
        from graphguard.demo.telling import tell
        from graphguard.reporters import demo

        story = tell(args.ranks, args.bound, args.keep, _progress)
        sys.stdout.write(demo.render_json(story) if args.json else demo.render(story))
        return 0 if story.as_claimed else 1


def _require(args: argparse.Namespace) -> None:
    if importlib.util.find_spec("torch") is None:
        raise CommandError(
            "the demo needs torch, which is not installed",
            hint="pip install torch; the CPU build is enough",
        )
    if not 2 <= args.ranks <= MAX_RANKS:
        raise CommandError(
            f"the demo runs 2 to {MAX_RANKS} ranks, not {args.ranks}", hint="give --ranks 2"
        )
    if not 1.0 <= args.bound <= 600.0:
        raise CommandError(
            f"the bound is 1 to 600 seconds, not {args.bound:g}", hint="give --bound 5"
        )


def _progress(sentence: str) -> None:
    sys.stderr.write(f"[demo] {sentence}\n")
    sys.stderr.flush()
