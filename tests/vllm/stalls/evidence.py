"""Whether a bundle has what it should have."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

ALWAYS = ("verdict.json", "index.json")


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
        stacks = [path for name, path in files.items() if "stack" in name and str(pid) in name]
        if not any(path.stat().st_size for path in stacks):
            found.append(f"the stacks of rank {rank}")
    return found
