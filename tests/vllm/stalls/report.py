"""Write what the stalls of real engines came to into ``docs/reliability.md``.

    python -m tests.vllm.stalls.report build/stalls.json docs/reliability.md

Only what lies between the two markers of that page is replaced.
"""

from __future__ import annotations

import sys
from collections.abc import Iterator
from pathlib import Path

import msgspec

from tests.vllm.stalls.harness import Seen
from tests.vllm.stalls.matrix import Matrix

BEGIN, END = "<!-- stalls: begin -->", "<!-- stalls: end -->"
_DIED_AT_ONCE = ("worker died", "worker's exception", "engine dead")


def render(matrix: Matrix) -> str:
    """Return the summary and the table as Markdown."""
    runs = list(matrix.runs.values())
    stalls = [seen for seen in runs if seen.right]
    told = [seen for seen in stalls if seen.told_after is not None]
    late = [seen.told_after - seen.limit for seen in told if seen.told_after is not None]
    benign = [seen for seen in runs if not seen.right]
    loads = [seen.load for seen in runs]
    lines = [
        f"Run on {matrix.machine}; {matrix.date}. The machine's load at the events, that of "
        f"the engine included, was {min(loads):.1f} to {max(loads):.1f}.",
        "",
        f"- {len(stalls)} stalls: {len(told)} told, "
        f"{sum(seen.said in seen.right for seen in told)} with the right class, "
        f"{sum(_blames_another(seen) for seen in told)} blamed on a rank that did nothing, "
        f"{sum(not seen.lacks for seen in told)} with a bundle that has all it should.",
        f"- Told {min(late):.1f} to {max(late):.1f} s after the limit, "
        f"{sum(each <= 2.0 for each in late)} of {len(late)} within 2 s.",
        f"- {len(benign)} times in which nothing may be said: "
        f"{sum(not seen.lines for seen in benign)} times nothing was.",
        "",
        "| what happened | engine | graphguard said | after | bundle | vLLM alone |",
        "|---|---|---|---|---|---|",
        *_rows(runs),
    ]
    return "\n".join(lines)


def _blames_another(seen: Seen) -> bool:
    return bool(set(seen.blamed) - {seen.rank})


def _rows(runs: list[Seen]) -> Iterator[str]:
    for seen in sorted(runs, key=lambda each: (not each.right, not each.graphs)):
        engine = "graphs" if seen.graphs else "eager"
        cells = (seen.case, engine, _said(seen), _after(seen), _bundle(seen), _vllm(seen))
        yield "| " + " | ".join(cell.replace("|", "/") for cell in cells) + " |"


def _said(seen: Seen) -> str:
    if not seen.said:
        text = "slow, no stall" if seen.slow else "nothing"
        return text if not seen.problems else f"**{'; '.join(seen.problems)}**"
    ranks = ", ".join(map(str, seen.blamed))
    text = f"{seen.said}: rank {ranks}" if ranks else f"{seen.said}: no rank"
    if seen.where:
        text += f", in `{seen.where}`"
    if seen.collective:
        text += f"; waited for in {seen.collective}"
    wrong = [problem for problem in seen.problems if not problem.startswith("the bundle")]
    return f"{text}; **{'; '.join(wrong)}**" if wrong else text


def _after(seen: Seen) -> str:
    return "" if seen.told_after is None else f"{seen.told_after:.1f} s (limit {seen.limit:g} s)"


def _bundle(seen: Seen) -> str:
    if not seen.said:
        return ""
    if seen.lacks:
        return f"**lacks {', '.join(seen.lacks)}**"
    return "complete" if seen.kept_after is None else f"complete after {seen.kept_after:.1f} s"


def _vllm(seen: Seen) -> str:
    said = [f"{what} after {after:.1f} s" for what, after in seen.vllm.items()]
    return "; ".join(said) or "nothing"


def main(source: Path, page: Path) -> None:
    """Replace the figures of a page."""
    table = render(msgspec.json.decode(source.read_bytes(), type=Matrix))
    before, rest = page.read_text().split(BEGIN)
    page.write_text(f"{before}{BEGIN}\n\n{table}\n\n{END}{rest.split(END)[1]}")


if __name__ == "__main__":
    main(Path(sys.argv[1]), Path(sys.argv[2]))
