"""vLLM's persistent_topk in a captured graph, with padded rows whose length is -1.

``python -m tests.gpu.suite.stages.topk SETTINGS``. The operator is the one of vLLM 0.20.1 (and of
0.26.0 where that was brought), called as ``sparse_attn_indexer.py`` calls it:
``persistent_topk(Tensor logits, Tensor lengths, Tensor! output, Tensor workspace, int k,
int max_seq_len)``, k being 512, 1024 or 2048.

With one draft, a decode of vLLM has two rows for each request, whose lengths are ``seq_len - 1``
and ``seq_len``. Where a padded request has length 0 its first row has -1, which the kernel reads as
4,294,967,295: a row for all thread blocks of a group, though those but the first have left when
``max_seq_len`` is at most 32,768. That is read from the source, and a guess until it was seen.
"""

from __future__ import annotations

import importlib.util
import os
import time
from itertools import product
from pathlib import Path
from typing import Any

from tests.gpu.suite import hanging, needs
from tests.gpu.suite.hanging import Outcome
from tests.gpu.suite.lines import Claim, NotRun, tell
from tests.gpu.suite.measuring import tell_value
from tests.gpu.suite.program import run_stage
from tests.gpu.suite.settings import Settings

VERSIONS = ("0.20.1", "0.26.0")
NEEDS = (needs.vllm(VERSIONS[0]),)
CASE_SECONDS = 6.0
START_SECONDS = 60.0
TOP_K = (512, 1024, 2048)
BATCHES = ((15, 16), (16, 16), (18, 20), (20, 20), (1, 1), (3, 4), (7, 8))
"""Requests, and those of the graph: two of them hung in a report, and their exact neighbours."""

EXTENTS = ((163_840, 32_768), (163_840, 163_840), (32_768, 4_096), (4_096, 4_096))
"""Elements of a row of logits (the model's length), and the longest sequence that is told."""

STALL_SECONDS = 2.0
STALL_MARK = "graphguard: STALL ["
PROGRAM = "tests.gpu.suite.programs.topk_cases"


def cases() -> list[dict[str, Any]]:
    """Return the cases: first those that the reports are about, controls beside each.

    A control has the same batch with lengths of padded rows clamped to 0, as a later vLLM does.
    """
    return [
        {
            "top_k": k,
            "reqs": reqs,
            "padded": padded,
            "rows_each": 2,
            "columns": columns,
            "max_seq_len": longest,
            "clamped": clamped,
        }
        for (columns, longest), (reqs, padded), k in product(EXTENTS, BATCHES, TOP_K)
        for clamped in ((True, False) if reqs != padded else (True,))
    ]


def run(settings: Settings) -> None:
    """Run the cases against each version that was brought."""
    end = time.monotonic() + settings.seconds - 10
    brought = [version for version in VERSIONS if not needs.vllm(version)(settings)]
    for number, version in enumerate(brought):
        left = (end - time.monotonic()) / (len(brought) - number)
        _version(settings, version, time.monotonic() + left)


def _version(settings: Settings, version: str, deadline: float) -> None:
    folder = Path(settings.scratch, version)
    folder.mkdir(parents=True)
    wanted = cases()
    # What is kept back is for one more run of a case that hangs, observed.
    found = _outcomes(settings, version, wanted, folder, deadline - 2 * CASE_SECONDS)
    for outcome in found:
        if outcome.hung or outcome.error:
            tell(Claim(f"{version}: {_words(outcome.case)}", None, _seen(outcome)))
    if len(found) < len(wanted):
        left_out = len(wanted) - len(found)
        tell(NotRun(f"{version}: {left_out} of {len(wanted)} cases", "no time was left"))
    _tell_summary(version, found)
    _tell_refusal()
    hung = [outcome.case for outcome in found if outcome.hung]
    if hung:
        _observed(settings, version, {**hung[0], "guarded": True}, folder)


def _outcomes(
    settings: Settings,
    version: str,
    wanted: list[dict[str, Any]],
    folder: Path,
    deadline: float,
) -> list[Outcome]:
    environment = {
        **os.environ,
        "GRAPHGUARD_STALL_SECONDS": f"{STALL_SECONDS:g}",
        "GRAPHGUARD_DIR": str(folder / "boxes"),
    }
    return list(
        hanging.outcomes(
            PROGRAM,
            [settings.vllm[version]],
            wanted,
            folder,
            case_seconds=CASE_SECONDS,
            start_seconds=START_SECONDS,
            environment=environment,
            deadline=deadline,
        )
    )


def _tell_refusal() -> None:
    """Ask the padding check of the plugin about such rows; a launch that it finds is refused."""
    import numpy as np

    from graphguard.vllm.padding import MetadataView, Tail, violations

    rows = Tail("decode.seq_lens", np.array([-1, 0], dtype=np.int32), 30)
    found = violations(MetadataView(15, 16, 30, 32, 2, derived=(rows,)))
    what = "the padding check finds rows of length -1, for which enforce refuses the launch"
    tell(Claim(what, bool(found), "; ".join(map(str, found))))


def _observed(settings: Settings, version: str, case: dict[str, Any], folder: Path) -> None:
    """Run a case that hangs once more, with a guard that observes and a watchdog."""
    own = folder / "observed"
    own.mkdir()
    what = f"{version}: in observe the replay that hangs is named as a stall"
    outcomes = _outcomes(settings, version, [case], own, time.monotonic() + START_SECONDS)
    if not outcomes or not outcomes[0].hung:
        tell(
            Claim(what, None, f"it did not hang this time: {outcomes[0].error}" if outcomes else "")
        )
        return
    if importlib.util.find_spec("graphguard.watch.examining.examiner") is None:
        tell(NotRun(what, "this version of graphguard gives no verdict on stalls"))
        return
    log = (own / hanging.LOG).read_text(errors="replace")
    named = [line for line in log.splitlines() if STALL_MARK in line]
    tell(Claim(what, bool(named), named[0][:600] if named else "no line about it"))


def _tell_summary(version: str, found: list[Outcome]) -> None:
    hung = [outcome for outcome in found if outcome.hung]
    unclamped = [o for o in found if not o.case["clamped"] and not o.error]
    controls = [o for o in found if o.case["clamped"] and not o.error]
    what = f"{version}: a replay with padded rows of length -1 hangs"
    names = "; ".join(_words(outcome.case) for outcome in hung[:5])
    # Either result is worth having.
    tell(Claim(what, None, f"{len(hung)} of {len(found)} cases hung: {names or 'none'}"))
    ended = sum(not outcome.hung for outcome in controls)
    what = f"{version}: replays without such rows end"
    tell(Claim(what, None, f"{ended} of {len(controls)} ended"))
    wrong = [o for o in unclamped + controls if isinstance(o.value, dict) and not o.value["right"]]
    names = "; ".join(_words(outcome.case) for outcome in wrong[:5])
    what = f"{version}: rows of live requests hold the right indices where the replay ended"
    tell(Claim(what, None, f"wrong in {len(wrong)} cases{': ' * bool(names)}{names}"))
    tell_value(f"{version}: cases that ran", "cases", float(len(found)))


def _words(case: dict[str, Any]) -> str:
    rows = "clamped" if case["clamped"] else "of length -1"
    return (
        f"top-k {case['top_k']}, {case['reqs']} of {case['padded']} requests, padded rows {rows}, "
        f"rows of {case['columns']}, max_seq_len {case['max_seq_len']}"
    )


def _seen(outcome: Outcome) -> str:
    if outcome.hung:
        return f"hung: no end within {CASE_SECONDS:.0f} s, killed"
    return outcome.error


if __name__ == "__main__":
    run_stage("topk", NEEDS, run)
