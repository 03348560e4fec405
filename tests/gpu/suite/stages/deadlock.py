"""Two ranks replay different graphs: off it hangs, observed it is named, enforced it is stopped."""

from __future__ import annotations

import time
from pathlib import Path

from tests.gpu.suite import needs, ranks
from tests.gpu.suite.lines import Claim, tell
from tests.gpu.suite.measuring import tell_value
from tests.gpu.suite.program import run_stage
from tests.gpu.suite.ranks import Rank
from tests.gpu.suite.settings import Settings

NEEDS = (needs.two_ranks,)
START_SECONDS = 40.0
HANG_SECONDS = 10.0
NAMED_SECONDS = 1.0
WHEN_STUCK_CODE = 70


def run(settings: Settings) -> None:
    """Run the four cases."""
    folder = Path(settings.scratch)
    _off(_serve(settings, folder / "off", "first-large", "off"))
    _observed(_serve(settings, folder / "observe", "first-large", "observe"))
    _adopted(_serve(settings, folder / "adopted", "first-large", "enforce"))
    _refused(_serve(settings, folder / "refused", "first-small", "enforce"))


def _serve(settings: Settings, folder: Path, case: str, mode: str) -> list[Rank]:
    def hangs(seen: list[tuple[ranks.Event, ...]]) -> bool:
        """Say whether the step in which they differ was launched long ago."""
        launched = [e.at for own in seen for e in own if e.name == "different launch"]
        return bool(launched) and time.monotonic() > max(launched) + HANG_SECONDS

    return ranks.run(
        "serving", [case, mode], folder, settings, START_SECONDS + HANG_SECONDS, until=hangs
    )


def _armed(what: str, served: list[Rank]) -> bool:
    """Tell if the ranks did not even get to the step that matters."""
    if all(rank.when("different launch") is not None for rank in served):
        return True
    logs = " / ".join(rank.log.strip()[-300:] for rank in served)
    tell(Claim(what, False, f"the ranks did not get there: {logs}"))
    return False


def _off(served: list[Rank]) -> None:
    what = "without graphguard, ranks that replay different graphs hang"
    if _armed(what, served):
        hung = [rank.code is None and rank.when("after end") is None for rank in served]
        seen = ", ".join(_standing(number, rank) for number, rank in enumerate(served))
        killed = f"; killed {HANG_SECONDS:.0f} s after the launch" if any(hung) else ""
        # What happens without graphguard is not its claim to hold.
        tell(Claim(what, True if any(hung) else None, seen + killed))


def _standing(number: int, rank: Rank) -> str:
    where = rank.events[-1].name if rank.events else "nothing"
    return f"rank {number} last reported {where!r}" + ("" if rank.code is None else ", ended")


def _observed(served: list[Rank]) -> None:
    what = f"in observe the difference is named within {NAMED_SECONDS:.0f} s of the later launch"
    if not _armed(what, served):
        return
    launched = max(rank.when("different launch") or 0.0 for rank in served)
    named = [at for rank in served if (at := rank.when("log", "ranks differ")) is not None]
    if not named:
        tell(Claim(what, False, "no line about it"))
        return
    delay = max(0.0, min(named) - launched)
    texts = (str(e.value) for r in served for e in r.events if "ranks differ" in str(e.value))
    tell(Claim(what, delay <= NAMED_SECONDS, next(texts)[:600]))
    tell_value("from the later launch to the line that names both sides", "ms", delay * 1e3)


def _adopted(served: list[Rank]) -> None:
    what = (
        "in enforce the later rank does what the first one decided, and the next steps are served"
    )
    if _armed(what, served):
        fine = all(rank.code == 0 and rank.when("after end") is not None for rank in served)
        verdicts = [str(rank.value("different end")) for rank in served]
        tell(Claim(what, fine, f"verdicts of that step: {', '.join(verdicts)}"))


def _refused(served: list[Rank]) -> None:
    what = "in enforce a rank that cannot do the same is refused before it launches"
    if not _armed(what, served):
        return
    early, late = served
    message = str(late.value("refused"))
    tell(Claim(what, late.when("refused") is not None, message[:600]))
    what = "the rank that waits for it in its launch is ended instead of hanging"
    ended = early.code == WHEN_STUCK_CODE or early.when("different end") is not None
    tell(Claim(what, ended, f"exit code {early.code}"))


if __name__ == "__main__":
    run_stage("deadlock", NEEDS, run)
