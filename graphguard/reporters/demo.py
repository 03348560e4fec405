"""The demo's story as text for people, and as JSON for programs."""

from __future__ import annotations

import signal
from collections.abc import Iterator, Sequence
from textwrap import wrap

import msgspec

from graphguard.agreement.watcher import STUCK_EXIT_CODE
from graphguard.audit.findings import ranks_text
from graphguard.blackbox.merge import merge
from graphguard.demo.story import (
    Adoption,
    Diverging,
    Guarded,
    Killed,
    RankEnd,
    Stand,
    Story,
    Unguarded,
)
from graphguard.reporters import blackbox, blackbox_json, table, text

STACK_LINES = 3
MESSAGE_WIDTH = 94


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
        "",
        *_diverging(story.diverging),
        "",
        *_killed(story.killed),
    ]
    lines += [f"trouble: {trouble}" for trouble in story.troubles]
    for what, paths in (("manifests", story.manifests), ("black boxes", story.black_boxes)):
        if paths:
            lines += ["", f"{what}:", *("  " + path for path in paths)]
    return "\n".join(lines).rstrip() + "\n"


def render_json(story: Story) -> str:
    """Return the story as JSON; of the black boxes, what ``graphguard blackbox --json`` finds."""
    document = msgspec.to_builtins(story)
    boxes = story.killed.black_boxes
    document["killed"]["black_boxes"] = msgspec.json.decode(
        blackbox_json.summary(merge(boxes.boxes), boxes)
    )
    document["as_claimed"] = story.as_claimed
    return msgspec.json.format(msgspec.json.encode(document)).decode() + "\n"


def _unguarded(run: Unguarded) -> Iterator[str]:
    yield f"UNGUARDED: {run.outcome}, {_in_all(run.seconds)}"
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
    yield f"GUARDED (mode=enforce, with a group): {run.outcome}, {_in_all(run.seconds)}"
    rows = [
        (step.batch, step.role, _agreed(step.verdicts), f"{step.difference:.1e}")
        for step in run.steps
    ]
    columns = ("step", "role", "verdict on every rank", "largest difference to eager")
    yield from ("  " + line for line in table.render("", columns, rows).splitlines() if line)
    yield f"  outputs equal to an all-eager run: {'yes' if run.equal_to_eager else 'NO'}"
    if run.adoption is not None:
        yield from _adoption(run.adoption)
    yield f"  launches in which all ranks did the same, by their black boxes: {run.agreed_launches}"


def _adoption(adoption: Adoption) -> Iterator[str]:
    step = adoption.step
    yield (
        f"  Then a static tensor moved on rank {adoption.rank} only, which came first to the next "
        f"step ({step.batch}, {step.role}):"
    )
    for rank, verdict in enumerate(step.verdicts):
        yield f"    rank {rank}: {verdict}"
    yield f"    largest difference to eager: {step.difference:.1e}"


def _diverging(run: Diverging) -> Iterator[str]:
    yield f"DIVERGENCE (mode=enforce, with a group): {run.outcome}, {_in_all(run.seconds)}"
    yield "  One rank skips its drafter and comes with its next target, when the others have"
    yield "  launched the drafter. It stays until they end: gloo would tell them that it is gone."
    if run.launched:
        yield f"  {ranks_text(run.launched)} had launched, the black boxes say."
    if run.refusal is None:
        yield "  NOBODY was refused"
    else:
        rank = run.refusal.rank
        before = "AFTER it had launched" if rank in run.launched else "before it launched"
        milliseconds = 1_000 * run.refusal.seconds
        yield f"  rank {rank} was refused {before}, {milliseconds:.1f} ms after it came:"
        yield from ("    " + line for line in wrap(run.refusal.message, MESSAGE_WIDTH))
    yield from _ends(run.ends, "the divergence")


def _killed(run: Killed) -> Iterator[str]:
    yield f"BLACK BOX (mode=enforce, with a group): {run.outcome}, {_in_all(run.seconds)}"
    yield "  One rank is killed in the middle of a replay, when the others have launched what comes"
    yield "  next. gloo tells them that it is gone, and they wait on, as with NCCL."
    yield from _ends(run.ends, "the kill")
    yield "  What is left, as `graphguard blackbox` shows it:"
    report = blackbox.render(merge(run.black_boxes.boxes), run.black_boxes, 0)
    yield from ("  " + line for line in report.splitlines() if line)


def _ends(ends: Sequence[RankEnd], since: str) -> Iterator[str]:
    for end in ends:
        after = "" if end.seconds is None else f", {end.seconds:.1f} s after {since}"
        yield f"  rank {end.rank} {_ended(end.exit_code)}{after}"


def _ended(exit_code: int | None) -> str:
    if exit_code is None:
        return "did not end"
    if exit_code == STUCK_EXIT_CODE:
        return f"was ended by its watcher (exit code {exit_code})"
    if exit_code < 0:
        return f"was ended by {signal.Signals(-exit_code).name}"
    return f"ended with exit code {exit_code}"


def _in_all(seconds: float) -> str:
    return f"after {seconds:.1f} s in all"


def _agreed(verdicts: list[str]) -> str:
    return " / ".join(dict.fromkeys(verdicts))


def _findings(count: int) -> str:
    return "no difference found" if not count else f"{count} finding{'' if count == 1 else 's'}"
