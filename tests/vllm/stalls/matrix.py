"""Let every stall happen in real engines, one after the other, and write what was seen as JSON.

    python -m tests.vllm.stalls.matrix build/stalls.json [PART…]

Parts: ``recoverable``, ``startup``, ``fatal``, ``eager``, ``breadcrumbs``; without any,
all of them. Results of parts that were run before stay in the file.
"""

from __future__ import annotations

import os
import platform
import sys
import time
from collections.abc import Callable, Sequence
from datetime import datetime, timezone
from pathlib import Path

import msgspec

from tests.vllm.stalls import cases
from tests.vllm.stalls.cases import Case
from tests.vllm.stalls.harness import Seen, happen, happen_at_start, keep_evidence, stalling_engine


class Matrix(msgspec.Struct):
    """What was seen, and where.

    Attributes:
        machine: Where it ran.
        date: When the last of it did.
        runs: What was seen, by the name of the case and the engine that it happened in.
    """

    machine: str
    date: str
    runs: dict[str, Seen]


def in_one_engine(
    these: Sequence[Case],
    *,
    graphs: bool,
    settings: dict[str, str] | None,
    keep: Callable[[Seen], None],
) -> None:
    """Let cases happen one after the other in one engine."""
    with stalling_engine(graphs=graphs, settings=settings) as (run, observer):
        for case in these:
            seen = happen(run, observer, case, graphs=graphs)
            if settings and "GRAPHGUARD_STALL_SECONDS" in settings:
                seen.limit = float(settings["GRAPHGUARD_STALL_SECONDS"])
            keep_evidence(run, seen)
            keep(seen)
            if seen.outcome not in ("served", "nothing asked"):
                return


def main(target: Path, parts: Sequence[str]) -> None:
    """Run the parts and write what was seen, after each case."""
    matrix = Matrix("", "", {})
    if target.exists():
        matrix = msgspec.json.decode(target.read_bytes(), type=Matrix)
    matrix.machine = _machine()

    def keep(seen: Seen) -> None:
        name = f"{seen.case}, {'graphs' if seen.graphs else 'eager'}"
        matrix.runs[name] = seen
        matrix.date = datetime.now(timezone.utc).date().isoformat()
        target.write_bytes(msgspec.json.format(msgspec.json.encode(matrix), indent=1))
        after = "" if seen.told_after is None else f" after {seen.told_after:.1f} s"
        said = f"{seen.said or 'nothing said'}{after}"
        print(f"{_clock()} {name}: {said}; {'; '.join(seen.problems) or 'right'}", flush=True)

    for part in parts or PARTS:
        began = time.monotonic()
        PARTS[part](keep)
        print(f"{_clock()} {part}: {time.monotonic() - began:.0f} s", flush=True)


Keep = Callable[[Seen], None]


def _recoverable(keep: Keep) -> None:
    these = (*cases.RECOVERABLE, *cases.BENIGN, cases.SLEEPS, cases.SKIPS)
    in_one_engine(these, graphs=True, settings=None, keep=keep)


def _eager(keep: Keep) -> None:
    limit = {"GRAPHGUARD_STALL_SECONDS": "1"}
    idle = msgspec.structs.replace(cases.BENIGN[-1], name="idle, with a limit of 1 s")
    in_one_engine((idle,), graphs=False, settings=limit, keep=keep)
    stopped, spins = cases.RECOVERABLE[1], cases.RECOVERABLE[2]
    these = (cases.BENIGN[0], stopped, spins, cases.SKIPS)
    in_one_engine(these, graphs=False, settings=None, keep=keep)
    for case in cases.FATAL:
        in_one_engine((case,), graphs=False, settings=None, keep=keep)
    for case in cases.STARTUP[:2]:
        keep(happen_at_start(case, graphs=False))


def _breadcrumbs(keep: Keep) -> None:
    these = tuple(
        msgspec.structs.replace(case, name=f"{case.name}; with breadcrumbs")
        for case in (cases.RECOVERABLE[3], cases.SKIPS)
    )
    in_one_engine(these, graphs=True, settings={"GRAPHGUARD_BREADCRUMBS": "1"}, keep=keep)


def _fatal(keep: Keep) -> None:
    for case in cases.FATAL:
        in_one_engine((case,), graphs=True, settings=None, keep=keep)


def _startup(keep: Keep) -> None:
    for case in cases.STARTUP:
        keep(happen_at_start(case))


PARTS: dict[str, Callable[[Keep], None]] = {
    "recoverable": _recoverable,
    "startup": _startup,
    "fatal": _fatal,
    "eager": _eager,
    "breadcrumbs": _breadcrumbs,
}


def _machine() -> str:
    return (
        f"{os.cpu_count()} cores, {platform.system()} {platform.release()}, "
        f"CPython {platform.python_version()}, vLLM's CPU build 0.32.0"
    )


def _clock() -> str:
    return time.strftime("%H:%M:%S")


if __name__ == "__main__":
    main(Path(sys.argv[1]), sys.argv[2:])
