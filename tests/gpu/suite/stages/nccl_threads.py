"""Two ranks of NCCL as threads of one process, recorded by the interposer."""

from __future__ import annotations

from pathlib import Path

from tests.gpu.suite import needs, ranks
from tests.gpu.suite.lines import Claim, NotRun, tell
from tests.gpu.suite.program import run_stage
from tests.gpu.suite.settings import Settings

NEEDS = (needs.real_graphs, needs.two_ranks, needs.brought_nccl)
RUN_SECONDS = 45.0


def run(settings: Settings) -> None:
    """Run both threads in a process that has the interposer loaded."""
    from graphguard.errors import ConfigurationError
    from graphguard.recorders import nccl_interposer

    try:
        preloading = nccl_interposer.preloading(needs.two_rank_environment(settings))
    except ConfigurationError as error:
        tell(NotRun("ranks as threads", error.message))
        return
    (process,) = ranks.run(
        "threads",
        [],
        Path(settings.scratch, "threads"),
        settings,
        RUN_SECONDS,
        number=1,
        environment=preloading,
    )
    what = "two ranks as threads of one process capture and replay"
    errors, values = process.value("errors"), process.value("values")
    if process.code is None:
        where = process.events[-1].name if process.events else "nothing"
        # NCCL itself warns of it: that is told, and nobody's claim.
        tell(Claim(what, None, f"no end within {RUN_SECONDS:.0f} s, last was {where!r}; killed"))
        return
    good = process.code == 0 and not errors and values == [[3.0], [3.0]]
    seen = f"results {values}" if good else f"{errors or process.log[-500:]}"
    tell(Claim(what, True if good else None, seen))
    if good:
        calls = process.value("calls")
        recorded = len(calls[0]) == 2 and len(calls[0]) == len(calls[1])
        what = "each thread's graph holds the two calls that it made, and none of the other's"
        tell(Claim(what, recorded, str(calls)))


if __name__ == "__main__":
    run_stage("nccl_threads", NEEDS, run)
