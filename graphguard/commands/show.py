"""The command ``graphguard show``."""

from __future__ import annotations

import argparse
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from graphguard import manifest
from graphguard.communication import communication
from graphguard.manifest import Manifest
from graphguard.printable import printable
from graphguard.reporters import json, table

COLUMNS = ("graph", "batch", "tokens", "collectives", "inputs", "shared digest", "kind")
SHOWN_DIGITS = 12


class ShowCommand:
    """Show the graphs that one process captured.

    Ranks agree on a graph exactly if its shared digest is the same on all of them.
    """

    def prepare_parser(self, parser: argparse.ArgumentParser) -> None:
        """Add the arguments of the command."""
        parser.add_argument("manifest", type=Path, metavar="MANIFEST", help="a manifest file")
        parser.add_argument("--json", action="store_true", help="print JSON")
        parser.add_argument(
            "--collectives", action="store_true", help="list the collective calls of each graph"
        )
        parser.add_argument(
            "--nodes",
            action="store_true",
            help="list the nodes of each CUDA graph, alike ones once",
        )

    def run(self, args: argparse.Namespace) -> int:
        """Print what the manifest holds."""
        shown = manifest.read(args.manifest)
        if args.json:
            sys.stdout.write(json.document(_document(shown, args.collectives, args.nodes)))
            return 0
        sys.stdout.write(_table(shown))
        if args.collectives:
            sys.stdout.writelines(line + "\n" for line in _collectives(shown))
        if args.nodes:
            sys.stdout.writelines(line + "\n" for line in _nodes(shown))
        return 0


def _table(shown: Manifest) -> str:
    title = f"rank {shown.rank} of {shown.world_size}"
    details = (
        f"host {shown.host}" if shown.host else "",
        f"pid {shown.pid}" if shown.pid else "",
        f"mode {shown.mode}" if shown.mode else "",
        shown.created,
    )
    rows = [
        (
            str(signature.key),
            str(signature.batch),
            str(signature.batch.num_tokens),
            str(len(signature.collectives)),
            str(signature.num_inputs),
            signature.shared_digest[:SHOWN_DIGITS],
            signature.graph_kind,
        )
        for signature in shown.signatures
    ]
    return table.render(", ".join([title, *filter(None, details)]), COLUMNS, rows)


def _collectives(shown: Manifest) -> Iterator[str]:
    for signature in shown.signatures:
        yield printable(str(signature))
        for position, call in enumerate(signature.collectives):
            yield f"  {position:>5}  {printable(str(call))}"


def _nodes(shown: Manifest) -> Iterator[str]:
    for signature in shown.signatures:
        yield printable(str(signature))
        for node in signature.graph_nodes:
            match = communication(node)
            family = f"  [{match.family.family}]" if match is not None else ""
            yield f"  {printable(str(node))}{family}"


def _document(shown: Manifest, collectives: bool, nodes: bool) -> dict[str, Any]:
    graphs: list[dict[str, Any]] = [
        {
            "key": str(signature.key),
            "batch": str(signature.batch),
            "tokens": signature.batch.num_tokens,
            "collectives": len(signature.collectives),
            "inputs": signature.num_inputs,
            "shared_digest": signature.shared_digest,
            "local_digest": signature.local_digest,
            "kind": signature.graph_kind,
        }
        for signature in shown.signatures
    ]
    if collectives:
        for graph, signature in zip(graphs, shown.signatures, strict=True):
            graph["calls"] = signature.collectives
    if nodes:
        for graph, signature in zip(graphs, shown.signatures, strict=True):
            graph["nodes"] = signature.graph_nodes
    return {
        "schema": "graphguard.show",
        "version": 1,
        "rank": shown.rank,
        "world_size": shown.world_size,
        "mode": shown.mode,
        "host": shown.host,
        "pid": shown.pid,
        "created": shown.created,
        "versions": shown.versions,
        "query_lens": shown.query_lens,
        "graphs": graphs,
    }
