"""Check the models of the ledger's protocol with spin.

    python models/check.py [--quick] [--short] [--json] [model ...]

Every run must go through all states and find nothing; every mutation must be found, by the claim
that it breaks. A search that was cut short counts as a failure. Prints a table; progress goes to
stderr. The exit status is 0 if all is as expected, 1 if not, 2 if it could not be checked.
"""

from __future__ import annotations

import argparse
import json
import re
import resource
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

from plan import EVERY_WAIT_ENDS, MUTATIONS, NO_DEADLOCK, RUNS, Run

FOLDER = Path(__file__).resolve().parent
MODELS = tuple(dict.fromkeys(run.model for run in RUNS))
MEMORY_MEGABYTES = 4_000
MAX_DEPTH = 10_000
MAX_SECONDS = 900
BUILD_SECONDS = 120

CUT_SHORT = (
    "max search depth too small",
    "reached -DMEMLIM bound",
    "out of memory",
    "Search not completed",
    "Bit statespace search",
    "hash compact",
)
"""What pan says when it has not gone through all states."""

HINTS = {
    "spin": "apt-get install spin",
    "gcc": "apt-get install gcc",
}


class CannotRunError(Exception):
    """A tool is missing, or does not do its work."""


class Result(NamedTuple):
    """What a search came to.

    Attributes:
        run: What was searched.
        states: How many states were stored.
        seconds: Processor time of the search, without building it.
        megabytes: Memory of the search.
        found: The claim that was found broken, or "".
        trouble: Why the search says nothing, or "".
    """

    run: Run
    states: int
    seconds: float
    megabytes: float
    found: str
    trouble: str

    @property
    def as_expected(self) -> bool:
        """Whether a sound run found nothing, or a mutation was found by a claim that it breaks."""
        if self.trouble:
            return False
        return self.found in self.run.breaks if self.run.mutation else not self.found

    @property
    def verdict(self) -> str:
        """The result in words."""
        if self.trouble:
            return f"FAILED: {self.trouble}"
        if self.as_expected:
            return f"found by {self.found}" if self.found else "holds"
        if self.run.mutation and not self.found:
            return f"FAILED: not found, should break {' or '.join(self.run.breaks)}"
        return f"FAILED: {self.found} is broken"

    def row(self) -> dict[str, object]:
        """Return what ``--json`` prints of it."""
        run = self.run
        return {
            "model": run.model,
            "variant": run.variant,
            "ranks": run.ranks,
            "defines": list(run.defines),
            "mutation": run.mutation,
            "states": self.states,
            "seconds": self.seconds,
            "megabytes": self.megabytes,
            "found": self.found,
            "verdict": self.verdict,
            "as_expected": self.as_expected,
        }


def search(run: Run, max_depth: int) -> Result:
    """Build the search of a run and go through its states."""
    with tempfile.TemporaryDirectory(prefix="graphguard-models-") as name:
        folder = Path(name)
        _build(run, folder)
        began = _processor_seconds()
        try:
            done = subprocess.run(
                [folder / "pan", f"-m{max_depth}", *(("-l", "-f") if run.waits else ())],
                cwd=folder,
                capture_output=True,
                text=True,
                timeout=MAX_SECONDS,
                check=False,
            )
        except subprocess.TimeoutExpired:
            return Result(run, 0, MAX_SECONDS, 0, "", f"not done after {MAX_SECONDS} s")
        return read(run, done.stdout + done.stderr, _processor_seconds() - began)


def _processor_seconds() -> float:
    used = resource.getrusage(resource.RUSAGE_CHILDREN)
    return used.ru_utime + used.ru_stime


def _build(run: Run, folder: Path) -> None:
    defines = [f"RANKS={run.ranks}", *run.defines, *filter(None, [run.mutation])]
    _call(["spin", "-a", *(f"-D{d}" for d in defines), str(FOLDER / f"{run.model}.pml")], folder)
    if not (folder / "pan.c").exists():
        raise CannotRunError(f"spin made nothing of {run.model}.pml")
    flags = [f"-DMEMLIM={MEMORY_MEGABYTES}", "-DCOLLAPSE"]
    flags += ["-DNP", "-DNFAIR=3"] if run.waits else ["-DSAFETY"]
    if run.model in {"enforce", "vote"}:
        # Partial-order reduction is not sound where a process may be killed by a rendezvous.
        flags.append("-DNOREDUCE")
    optimisation = "-O0" if run.mutation else "-O2"
    _call(["gcc", optimisation, "-w", *flags, "-o", "pan", "pan.c"], folder)


def _call(command: Sequence[str], folder: Path) -> None:
    done = subprocess.run(
        command, cwd=folder, capture_output=True, text=True, timeout=BUILD_SECONDS, check=False
    )
    if done.returncode != 0:
        told = (done.stdout + done.stderr).strip()[-2_000:]
        raise CannotRunError(f"{' '.join(command)} failed:\n{told}")


def read(run: Run, output: str, seconds: float) -> Result:
    """Read what pan has printed."""
    states = _number(r"([\d.e+]+) states, stored", output)
    megabytes = _number(r"([\d.e+]+)\s+total actual memory usage", output)
    errors = re.search(r"errors: (\d+)", output)
    cut_short = [text for text in CUT_SHORT if text in output]
    found = _found(output)
    trouble = ""
    if errors is None or states is None:
        trouble = f"pan printed no result: {output.strip()[-300:]}"
    elif found == "" and int(errors[1]) > 0:
        trouble = f"an error that has no name: {output.strip()[:300]}"
    elif found == "" and (cut_short or "Full statespace search" not in output):
        trouble = f"not all states were searched: {', '.join(cut_short) or 'pan says so'}"
    return Result(run, int(states or 0), round(seconds, 2), megabytes or 0.0, found, trouble)


def _found(output: str) -> str:
    if assertion := re.search(r"assertion violated .*\|\|(\w+)\) \(at depth", output):
        return assertion[1]
    if "invalid end state" in re.sub(r"invalid end states\s.*", "", output):
        return NO_DEADLOCK
    if "pan:1: non-progress cycle" in output:
        return EVERY_WAIT_ENDS
    return ""


def _number(pattern: str, output: str) -> float | None:
    match = re.search(pattern, output)
    return float(match[1]) if match else None


def table(results: Sequence[Result]) -> str:
    """Return the results as a table."""
    head = ("model", "about", "ranks", "mutation", "states", "seconds", "MB", "verdict")
    rows = [
        (
            r.run.model,
            r.run.variant,
            str(r.run.ranks),
            r.run.mutation or "-",
            f"{r.states:,}",
            f"{r.seconds:.1f}",
            f"{r.megabytes:.0f}",
            r.verdict,
        )
        for r in results
    ]
    widths = [max(map(len, column)) for column in zip(head, *rows, strict=True)]
    return "\n".join(
        "  ".join(
            cell.rjust(width) if number else cell.ljust(width)
            for cell, width, number in zip(row, widths, (0, 0, 1, 0, 1, 1, 1, 0), strict=True)
        ).rstrip()
        for row in (head, *rows)
    )


def chosen(models: Sequence[str], quick: bool, short: bool) -> list[Run]:
    """Return what to search: all, or that of some models, with two ranks, that is not long."""
    return [
        run
        for run in (*RUNS, *MUTATIONS)
        if run.model in (models or MODELS)
        and not (quick and run.ranks > 2)
        and not (short and run.long)
    ]


def main(arguments: Sequence[str] | None = None) -> int:
    """Check the models and print a table. Returns the exit status."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("models", nargs="*", metavar="model", help=f"one of {', '.join(MODELS)}")
    parser.add_argument("--quick", action="store_true", help="two ranks only")
    parser.add_argument("--short", action="store_true", help="without the long runs")
    parser.add_argument("--json", action="store_true", help="print the results as JSON")
    parser.add_argument(
        "--max-depth",
        type=int,
        default=MAX_DEPTH,
        metavar="STEPS",
        help="longest execution that is followed; a search that meets a longer one has failed",
    )
    options = parser.parse_args(arguments)
    if unknown := set(options.models) - set(MODELS):
        parser.error(f"no such model: {', '.join(sorted(unknown))}")
    results = []
    try:
        for tool, hint in HINTS.items():
            if shutil.which(tool) is None:
                raise CannotRunError(f"{tool} is not installed: {hint}")
        runs = chosen(options.models, options.quick, options.short)
        for number, run in enumerate(runs, start=1):
            result = search(run, options.max_depth)
            results.append(result)
            print(
                f"[{number}/{len(runs)}] {run.model}, {run.variant}, {run.ranks} ranks"
                f"{', ' + run.mutation if run.mutation else ''}: {result.verdict} "
                f"({result.states:,} states, {result.seconds:.1f} s)",
                file=sys.stderr,
                flush=True,
            )
    except (CannotRunError, OSError, subprocess.TimeoutExpired) as error:
        print(f"the models cannot be checked: {error}", file=sys.stderr)
        return 2
    if options.json:
        print(json.dumps([result.row() for result in results], indent=1))
    else:
        print(table(results))
    return 0 if all(result.as_expected for result in results) else 1


if __name__ == "__main__":
    sys.exit(main())
