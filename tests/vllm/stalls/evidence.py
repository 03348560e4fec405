"""Whether a bundle has what it should have."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

import msgspec

ALWAYS = ("verdict.json", "index.json")
_NOT_HERE = frozenset({"breadcrumbs", "gpus", "nccl-ras"})
"""What this machine, or this engine, does not have."""


def lacks(bundle: Path, pids: Mapping[int, int]) -> list[str]:
    """Return what a bundle does not have, in words.

    Args:
        bundle: The directory.
        pids: The processes, by their ranks, that were alive: each has a black box and stacks.
    """
    files = {str(path.relative_to(bundle)): path for path in bundle.rglob("*") if path.is_file()}
    found = [name for name in ALWAYS if name not in files]
    for rank, pid in sorted(pids.items()):
        if not any(f"rank{rank}.{pid}" in name and name.endswith(".ring") for name in files):
            found.append(f"the black box of rank {rank}")
        stacks = files.get(f"stacks/{pid}.txt")
        if stacks is None or not stacks.stat().st_size:
            found.append(f"the stacks of rank {rank}")
    return found + _partly(files.get("index.json"))


def _partly(index: Path | None) -> list[str]:
    if index is None:
        return []
    # Stacks are looked for above: those of C code may take longer than there is time.
    return [
        f"{each['name']} ({each['reason']})"
        for each in msgspec.json.decode(index.read_bytes())["collectors"]
        if each["became"] != "complete" and each["name"] not in _NOT_HERE | {"stacks"}
    ]
