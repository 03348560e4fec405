"""The command ``graphguard audit``."""

from __future__ import annotations

import argparse
import sys
from pathlib import Path

from graphguard.audit import audit, coverage, load
from graphguard.reporters import json, text


class AuditCommand:
    """Compare the manifests of all ranks and report every difference that breaks NCCL's rule.

    All ranks must capture the same collectives in the same order, or the first replay hangs.
    Name the manifests of all ranks, or the directories that hold them.
    """

    def prepare_parser(self, parser: argparse.ArgumentParser) -> None:
        """Add the arguments of the command."""
        parser.add_argument(
            "paths",
            nargs="+",
            type=Path,
            metavar="PATH",
            help="a manifest, or a directory with manifest.rank<N>.json",
        )
        parser.add_argument("--json", action="store_true", help="print JSON, with all findings")
        parser.add_argument(
            "--query-len",
            action="append",
            default=[],
            type=_query_len,
            metavar="ROLE=N",
            help="query tokens of a request in a uniform decode step of a role: 1 + the number of "
            "drafted tokens (default: what the manifests say)",
        )

    def run(self, args: argparse.Namespace) -> int:
        """Print the findings; 1 if there are any."""
        manifests, unreadable = load(args.paths)
        findings = [*unreadable, *audit(manifests, dict(args.query_len))]
        render = json.render if args.json else text.render
        sys.stdout.write(render(findings, coverage(manifests)))
        return 1 if findings else 0


def _query_len(value: str) -> tuple[str, int]:
    role, _, number = value.rpartition("=")
    if not role or not number.isascii() or not number.isdigit() or not 1 <= len(number) <= 9:
        raise argparse.ArgumentTypeError(f"{value!r} is not ROLE=N, such as target=2")
    if int(number) == 0:
        raise argparse.ArgumentTypeError("a request has at least 1 query token")
    return role, int(number)
