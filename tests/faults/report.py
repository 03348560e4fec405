"""Write what a run of the fault matrix found into ``docs/reliability.md``.

    python -m tests.faults.report build/faults.json docs/reliability.md

Only what lies between the two markers of that page is replaced.
"""

from __future__ import annotations

import sys
from collections.abc import Iterator
from pathlib import Path

import msgspec

from tests.faults.judge import Judged
from tests.faults.matrix import Matrix

BEGIN, END = "<!-- faults: begin -->", "<!-- faults: end -->"


def render(matrix: Matrix) -> str:
    """Return the summary and the table as Markdown."""
    faults = [judged for judged in matrix.runs if not judged.silent]
    sound = [judged for judged in matrix.runs if judged.silent]
    decidable = [judged for judged in faults if judged.decidable]
    sizes = sorted({judged.ranks for judged in faults})
    lines = [
        f"Run on {matrix.machine}; {matrix.date}, {matrix.seconds:.0f} s.",
        "",
        f"- {len(faults)} faults injected ({len(faults) // len(sizes)} on "
        f"{', '.join(map(str, sizes))} ranks): **{sum(bool(f.knew) for f in faults)} seen**, "
        f"{sum(f.blame == 'wrong' for f in faults)} blamed on a rank that did nothing, "
        f"{sum(not f.problems for f in faults)} as expected in every respect.",
        f"- {len(decidable)} of them can be decided before the launch: "
        f"{sum(bool(f.stopped) for f in decidable)} were.",
        f"- {len(sound)} runs in which nothing may be said: "
        f"{sum(not s.problems for s in sound)} said nothing.",
        f"- {len(matrix.unguarded)} runs of faults in mode `off`: "
        f"{sum(u.wrong for u in matrix.unguarded)} hung, crashed or computed something wrong.",
        "",
        "| fault | mode | before launch | " + " | ".join(f"{n} ranks" for n in sizes) + " |",
        "|---|---|---|" + "---|" * len(sizes),
        *_rows(matrix, sizes),
    ]
    return "\n".join(lines)


def _rows(matrix: Matrix, sizes: list[int]) -> Iterator[str]:
    by_fault: dict[tuple[str, str], dict[int, Judged]] = {}
    for judged in matrix.runs:
        by_fault.setdefault((judged.fault, judged.mode), {})[judged.ranks] = judged
    for (fault, mode), runs in by_fault.items():
        first = next(iter(runs.values()))
        before = "nothing to see" if first.silent else _before(list(runs.values()))
        cells = [_cell(runs[size]) if size in runs else "" for size in sizes]
        yield f"| {fault} | {mode} | {before} | " + " | ".join(cells) + " |"


def _before(runs: list[Judged]) -> str:
    if not runs[0].decidable:
        return "cannot be"
    return "yes" if all(run.stopped for run in runs) else "**no**"


def _cell(judged: Judged) -> str:
    if judged.problems:
        return f"**{'; '.join(judged.problems)}**".replace("|", "/")
    if judged.silent:
        return "nothing said"
    after = f"{min(judged.knew.values()) * 1e3:.1f} ms" if judged.knew else "?"
    ended = "" if judged.ended is None else f", ended after {judged.ended:.1f} s"
    return f"seen by {len(judged.knew)} of {judged.ranks}, first after {after}{ended}"


def main(source: Path, page: Path) -> None:
    """Replace the figures of a page."""
    table = render(msgspec.json.decode(source.read_bytes(), type=Matrix))
    before, rest = page.read_text().split(BEGIN)
    page.write_text(f"{before}{BEGIN}\n\n{table}\n\n{END}{rest.split(END)[1]}")


if __name__ == "__main__":
    main(Path(sys.argv[1]), Path(sys.argv[2]))
