"""Runs every fault on 2, 4 and 8 ranks, and writes down what came out.

    python -m tests.faults.matrix build/faults.json

Ends with 1 if something did not come out as it should.
"""

from __future__ import annotations

import os
import platform
import sys
import tempfile
import time
from collections.abc import Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from datetime import datetime, timezone
from pathlib import Path

import msgspec

from tests.faults.catalogue import FAULTS, SOUND, UNGUARDED
from tests.faults.expected import Fault
from tests.faults.harness import RUNS_AT_A_TIME, Harness
from tests.faults.judge import Judged, judge, went_wrong

SIZES = (2, 4, 8)


class Unguarded(msgspec.Struct, frozen=True):
    """What a fault did to a program that nothing guards.

    Attributes:
        fault: The name of the fault.
        ranks: How many ranks there were.
        ends: How each of them ended.
        wrong: Whether the run hung, crashed or computed something wrong.
    """

    fault: str
    ranks: int
    ends: list[str]
    wrong: bool


class Matrix(msgspec.Struct, frozen=True):
    """All of a run.

    Attributes:
        machine: Where it ran.
        date: When.
        seconds: How long it took.
        runs: What became of each fault on each number of ranks, and of runs without a fault.
        unguarded: What became of some of them in the mode off.
    """

    machine: str
    date: str
    seconds: float
    runs: list[Judged]
    unguarded: list[Unguarded]


def run(folder: Path) -> Matrix:
    """Run all of it."""
    began = time.monotonic()
    with Harness() as harness, ThreadPoolExecutor(RUNS_AT_A_TIME) as pool:

        def one(case: tuple[Fault, int]) -> Judged:
            fault, ranks = case
            judged = judge(fault, harness.run(fault.key, ranks, _made(folder, fault, ranks)))
            print(f"{fault.key}, {ranks} ranks: {'; '.join(judged.problems) or 'as it should'}")
            return judged

        def bare(case: tuple[Fault, int]) -> Unguarded:
            fault, ranks = case
            outcome = harness.run(fault.key, ranks, _made(folder, fault, ranks))
            ends = judge(fault, outcome).ends
            return Unguarded(fault.name, ranks, ends, went_wrong(outcome))

        runs = list(pool.map(one, _cases({**FAULTS, **SOUND})))
        unguarded = list(pool.map(bare, _cases(UNGUARDED)))
    return Matrix(
        machine=f"{os.cpu_count()} cores, {platform.system()} {platform.release()}, "
        f"{platform.python_implementation()} {platform.python_version()}, gloo",
        date=datetime.now(timezone.utc).date().isoformat(),
        seconds=time.monotonic() - began,
        runs=runs,
        unguarded=unguarded,
    )


def _cases(faults: Mapping[str, Fault]) -> Iterator[tuple[Fault, int]]:
    for fault in faults.values():
        for ranks in SIZES:
            yield fault, ranks


def _made(folder: Path, fault: Fault, ranks: int) -> Path:
    made = folder / f"{fault.key} {ranks}".replace(" ", "-").replace(",", "")
    made.mkdir()
    return made


def main(target: Path) -> int:
    """Run the matrix and write it to a file."""
    with tempfile.TemporaryDirectory() as folder:
        matrix = run(Path(folder))
    target.parent.mkdir(parents=True, exist_ok=True)
    target.write_bytes(msgspec.json.format(msgspec.json.encode(matrix)))
    return int(any(judged.problems for judged in matrix.runs))


if __name__ == "__main__":
    sys.exit(main(Path(sys.argv[1])))
