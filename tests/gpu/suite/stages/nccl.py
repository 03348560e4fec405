"""Two ranks with real collectives in their graphs: the audit of what they recorded."""

from __future__ import annotations

from pathlib import Path

from tests.gpu.suite import needs, ranks
from tests.gpu.suite.lines import Claim, tell
from tests.gpu.suite.program import run_stage
from tests.gpu.suite.settings import Settings

NEEDS = (needs.two_ranks,)
RUN_SECONDS = 50.0


def run(settings: Settings) -> None:
    """Audit equal ranks, and ranks with a planted difference."""
    folder = Path(settings.scratch)
    errors = _errors(settings, folder / "equal", "equal")
    if errors is not None:
        tell(Claim("the audit passes ranks that captured the same", not errors, "; ".join(errors)))
    errors = _errors(settings, folder / "planted", "planted")
    if errors is not None:
        what = (
            "the audit names a planted difference: another reduction in the second call of a graph"
        )
        tell(Claim(what, any(e.startswith("collective-") for e in errors), "; ".join(errors)))


def _errors(settings: Settings, folder: Path, case: str) -> list[str] | None:
    from graphguard.audit import audit, load
    from graphguard.audit.findings import Severity

    served = ranks.run("serving", [case, "observe"], folder, settings, RUN_SECONDS)
    if any(rank.code != 0 for rank in served):
        logs = " / ".join(rank.log.strip()[-300:] for rank in served)
        tell(Claim(f"{case} ranks capture and write manifests", False, logs))
        return None
    findings = audit(load([folder / "manifests"]).manifests)
    return [
        f"{f.rule}: {f.what}, at {f.graph} call {f.position}"
        for f in findings
        if f.severity is Severity.ERROR
    ]


if __name__ == "__main__":
    run_stage("nccl", NEEDS, run)
