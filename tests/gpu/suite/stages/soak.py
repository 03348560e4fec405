"""Random traffic on two ranks, enforced, for as long as there is time: no false finding."""

from __future__ import annotations

from pathlib import Path

from tests.gpu.suite import needs, ranks
from tests.gpu.suite.lines import Claim, NotRun, tell
from tests.gpu.suite.measuring import tell_value
from tests.gpu.suite.program import run_stage
from tests.gpu.suite.settings import Settings

NEEDS = (needs.device,)
START_SECONDS = 25.0


def run(settings: Settings) -> None:
    """Serve on two ranks, or on one where two do not fit."""
    alone = needs.two_ranks(settings)
    if alone:
        tell(NotRun("a soak of two ranks", alone))
    number = 1 if alone else 2
    seconds = max(1.0, settings.seconds - START_SECONDS)
    folder = Path(settings.scratch)
    served = ranks.run(
        "serving",
        ["soak", "enforce", f"{seconds:.1f}"],
        folder / "soak",
        settings,
        settings.seconds,
        number=number,
    )
    what = f"random traffic of {number} ranks in enforce: served to the end"
    done = all(rank.code == 0 for rank in served)
    logs = " / ".join(rank.log.strip()[-300:] for rank in served)
    tell(Claim(what, done, str(served[0].value("verdicts")) if done else logs))
    found = [text for rank in served for text in rank.value("divergences") or []]
    if done:
        tell(Claim("no finding in a soak in which nothing is wrong", not found, "; ".join(found)))
        tell_value("steps of the soak", "steps", float(served[0].value("steps")))


if __name__ == "__main__":
    run_stage("soak", NEEDS, run)
