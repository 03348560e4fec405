"""The demo's story as text for people."""

from __future__ import annotations

from collections.abc import Iterator

from graphguard.demo.story import Guarded, Stand, Story, Unguarded
from graphguard.reporters import table, text

STACK_LINES = 3


def render(story: Story) -> str:
    """Return the story as text."""
    lines = [
        *_unguarded(story.unguarded),
        "",
        *_guarded(story.guarded),
        "",
        "AUDIT of the manifests that the guarded run recorded",
        f"  {_findings(len(story.audit.recorded))}",
        "AUDIT of a copy in which rank 1 reduces half as many elements in its last call",
        f"  {_findings(len(story.audit.planted))}",
        *("  " + line for line in text.findings(story.audit.planted) if line),
    ]
    lines += [f"trouble: {trouble}" for trouble in story.troubles]
    if story.manifests:
        lines += ["", "manifests:", *("  " + path for path in story.manifests)]
    return "\n".join(lines).rstrip() + "\n"


def _unguarded(run: Unguarded) -> Iterator[str]:
    yield f"UNGUARDED: {run.outcome}, after {run.seconds:.1f} s in all"
    yield "  Rank 0 replays the graph of the nearest size; the others have none and run eagerly."
    yield "  The graph holds one collective more, all of one size: gloo hangs on a collective that"
    yield "  is missing, and aborts on one of another size, where NCCL spins on both."
    if run.outcome == "hang":
        yield f"  Nothing moved for {run.waited_seconds:.1f} s. They were ended where they stood:"
        for stand in run.ranks:
            yield from _stand(stand)
    if run.wrong_outputs:
        yield f"  Before that, {run.wrong_outputs} outputs were already wrong, without a word."


def _stand(stand: Stand) -> Iterator[str]:
    yield f"    rank {stand.rank}: last in {stand.step}; about to: {stand.doing}"
    for line in stand.stack[:STACK_LINES]:
        yield f"      {line}"


def _guarded(run: Guarded) -> Iterator[str]:
    yield f"GUARDED (mode=enforce): {run.outcome}, after {run.seconds:.1f} s in all"
    rows = [
        (step.batch, step.role, _agreed(step.verdicts), f"{step.difference:.1e}")
        for step in run.steps
    ]
    columns = ("step", "role", "verdict on every rank", "largest difference to eager")
    yield from ("  " + line for line in table.render("", columns, rows).splitlines() if line)
    yield f"  outputs equal to an all-eager run: {'yes' if run.equal_to_eager else 'NO'}"


def _agreed(verdicts: list[str]) -> str:
    return " / ".join(dict.fromkeys(verdicts))


def _findings(count: int) -> str:
    return "no difference found" if not count else f"{count} finding{'' if count == 1 else 's'}"
