"""Every rule that an audit checks: how bad it is to break it, why, and what to do then."""

from __future__ import annotations

from typing import NamedTuple

from graphguard.audit.findings import Finding, Severity, Side


class Rule(NamedTuple):
    """What is the same for all findings of a rule."""

    severity: Severity
    why: str
    advice: str


_ERROR, _WARNING = Severity.ERROR, Severity.WARNING

_HANG = (
    "launching a graph that holds a collective is itself a collective: NCCL waits, without a "
    "timeout, for every rank to launch the same calls in the same order"
)
_DATA = "NCCL does not check this: it hangs, or one rank reads or writes past the other's buffer"
_SAME_BRANCH = (
    "make every rank take the same way through the captured code: look for a branch on the rank, "
    "on free memory or on a local setting"
)
_SAME_SETTINGS = "give every rank the same capture sizes and settings, and capture again"
_SAME_SHAPES = "look for a tensor whose size or dtype depends on the rank, and capture again"
_PAIRING = "a send without its receive never ends, and neither does the graph that holds it"
_COLLECTIVE = Rule(_ERROR, _HANG, _SAME_BRANCH)

RULES: dict[str, Rule] = {
    "unreadable-manifest": Rule(
        _ERROR,
        "what this rank recorded was not compared with the others",
        "copy the file again from the machine that wrote it",
    ),
    "missing-rank": Rule(
        _ERROR,
        "what these ranks captured was not compared, so a difference there stays unseen",
        "collect the manifests of all machines; if one was never written, look for the error in "
        "the log of that rank",
    ),
    "duplicate-rank": Rule(
        _ERROR,
        "only the first of these files was compared; the other may be of another run",
        "keep the manifests of each run in a directory of its own",
    ),
    "world-size-differs": Rule(
        _ERROR,
        "the processes do not belong to one job, or did not join the same one",
        "audit the manifests of one run only, and check how the ranks were started",
    ),
    "rank-outside-world": Rule(
        _ERROR,
        "a job of N processes has the ranks 0 to N-1 only",
        "check RANK and WORLD_SIZE of this process",
    ),
    "missing-graph": Rule(_ERROR, _HANG, _SAME_SETTINGS),
    "collective-order": _COLLECTIVE,
    "collective-operation": _COLLECTIVE,
    "collective-count": Rule(_ERROR, _DATA, _SAME_SHAPES),
    "collective-dtype": Rule(_ERROR, _DATA, _SAME_SHAPES),
    "collective-reduction": Rule(
        _ERROR,
        "the ranks reduce differently: NCCL does not check this, and the result is wrong",
        _SAME_BRANCH,
    ),
    "collective-root": Rule(
        _ERROR,
        "NCCL does not check this: it hangs, or the data comes from a wrong rank",
        _SAME_BRANCH,
    ),
    "collective-group": Rule(
        _ERROR,
        _HANG,
        "create the process groups in the same order and with the same ranks everywhere",
    ),
    "collective-coalescing": _COLLECTIVE,
    "collective-missing": _COLLECTIVE,
    "unreadable-group": Rule(
        _WARNING,
        "which ranks have to agree is known from the communicator's text only; its calls were "
        "compared between the ranks that make them, so a rank that makes none stays unseen",
        "record with a recorder that writes the communicator as name[ranks]",
    ),
    "too-many-groups": Rule(
        _WARNING,
        "two communicators that are used in another order on another rank can deadlock",
        "is it a manifest of one process? no known program captures this many communicators",
    ),
    "unpaired-send": Rule(_ERROR, _PAIRING, _SAME_BRANCH),
    "unpaired-recv": Rule(_ERROR, _PAIRING, _SAME_BRANCH),
    "point-to-point-count": Rule(_ERROR, _DATA, _SAME_SHAPES),
    "point-to-point-dtype": Rule(_ERROR, _DATA, _SAME_SHAPES),
    "all-to-all-splits": Rule(_ERROR, _DATA, _SAME_SHAPES),
    "versions-differ": Rule(
        _WARNING,
        "versions may choose other algorithms, record other calls or name them otherwise",
        "install the same versions on all machines",
    ),
    "modes-differ": Rule(
        _ERROR,
        "a rank that enforces runs a step eagerly where one that only observes replays a graph, "
        "and then both wait for each other",
        "set the same GRAPHGUARD_MODE on every rank",
    ),
    "digest-mismatch": Rule(
        _ERROR,
        "the file was changed or damaged after it was written, or written by a faulty version; "
        "what it says of this graph cannot be trusted",
        "copy the file again from the machine that wrote it",
    ),
    "unfillable-size": Rule(
        _WARNING,
        "a decode step of equal requests never has this many tokens, so it is padded within a "
        "request; kernels that divide the tokens by the requests then go past their buffers",
        "capture sizes that are multiples of the query length only",
    ),
    "unseen-communication": Rule(
        _WARNING,
        "the graph holds kernels that communicate, by their names, and no recorder told of a call "
        "that leads to them; whether the ranks agree on these was not compared",
        "record with the NCCL profiler plugin or the interposer; for kernels of other libraries "
        "compare the nodes of the ranks' graphs",
    ),
    "duplicate-capture": Rule(
        _WARNING,
        "which of the two is replayed is left to the program, and memory that the other one has "
        "baked in may be freed",
        "capture each size once, or give the families different variants",
    ),
    "recorders-disagree": Rule(
        _WARNING,
        "what the graph holds was recorded in several ways at once, and they do not agree; it is "
        "the more detailed one that is compared with the other ranks",
        "a library that loads NCCL by its path is not seen by the interposer: set "
        "GRAPHGUARD_NCCL_SO to the same file, or let it load the interposer; else report it",
    ),
    "overlapping-buffers": Rule(
        _ERROR,
        "replaying one graph overwrites memory that the other one still reads or returns",
        "keep the tensors alive while the graphs are, or give the graphs separate memory pools",
    ),
}


def finding(
    rule: str,
    ranks: tuple[int, ...],
    what: str,
    *,
    graph: str = "",
    position: int | None = None,
    sides: tuple[Side, ...] = (),
    evidence: tuple[str, ...] = (),
    severity: Severity | None = None,
    repeats: int = 1,
) -> Finding:
    """Return a finding of a rule, with the reason and the advice of that rule."""
    entry = RULES[rule]
    return Finding(
        rule=rule,
        severity=severity or entry.severity,
        ranks=ranks,
        graph=graph,
        position=position,
        what=what,
        sides=sides,
        why=entry.why,
        advice=entry.advice,
        evidence=evidence,
        repeats=repeats,
    )
