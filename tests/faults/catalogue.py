"""The faults of the matrix, and what is to become of each."""

from __future__ import annotations

from tests.faults import ahead, at_capture, at_launch, damage, processes
from tests.faults.at_launch import (
    AHEAD,
    REPEATED,
    SKIPPED,
    SWAPPED,
    TWICE,
    moves_a_tensor,
    replaced,
    serves,
)
from tests.faults.expected import (
    ADOPTS,
    ARE_ADOPTED,
    GONE,
    MISSING,
    NOTHING,
    OBSERVED,
    RAISES_AT_CAPTURE,
    REFUSED_FIRST,
    REFUSES_LAST,
    End,
    Expected,
    Fault,
    Side,
    both,
)
from tests.faults.job import AT
from tests.faults.model import one_size

_CALLS = {
    "one collective more at capture": at_capture.captures(at_capture.one_more),
    "order of two collectives": at_capture.captures(at_capture.other_order),
    "dtype of a collective": at_capture.captures(at_capture.other_dtype),
    "count of a collective": at_capture.captures(at_capture.other_count),
    "root of a broadcast": at_capture.captures(at_capture.other_root),
    "reduction of an all-reduce": at_capture.captures(at_capture.other_reduction),
    "communicator of a collective": at_capture.captures_on_another_communicator,
}

_SETS = {
    "a size captured on one rank only": at_capture.captures_sizes(
        "1x2", "2x2", "4x2", "8x2", "12x2", "16x2"
    ),
    "a size missing on one rank": at_capture.captures_sizes("1x2", "2x2", "4x2", "16x2"),
    "another order of captures": at_capture.captures_sizes("2x2", "1x2", "4x2", "8x2", "16x2"),
    "roles sealed in another order": at_capture.seals_in_another_order,
}

_AT_CAPTURE = [
    *(Fault(n, "enforce", "capture", p, RAISES_AT_CAPTURE) for n, p in {**_CALLS, **_SETS}.items()),
    Fault(
        "a capture fails on one rank",
        "enforce",
        "capture",
        at_capture.a_capture_fails,
        Expected(
            Side(End.RAISED, (), "CaptureError"),
            Side(End.RAISED, (), "AgreementError"),
            decidable=True,
            launches=False,
        ),
    ),
    Fault(
        "one rank only observes",
        "enforce",
        "capture",
        at_capture.runs_in_another_mode,
        Expected(
            Side(End.ANY, ("captures-differ",)),
            Side(End.RAISED, ("captures-differ",), "AgreementError"),
            decidable=True,
        ),
        {"GRAPHGUARD_AGREE_SECONDS": "1"},
    ),
    Fault(
        "a rank never seals",
        "enforce",
        "capture",
        at_capture.never_seals,
        Expected(Side(End.FINISHED), MISSING, decidable=True, launches=False),
        {"GRAPHGUARD_AGREE_SECONDS": "1"},
    ),
    Fault(
        "a rank dies before it seals",
        "enforce",
        "capture",
        at_capture.dies_before_it_seals,
        Expected(
            Side(End.KILLED),
            Side(End.RAISED, ("peer-gone",), "RankMissing"),
            decidable=True,
            launches=False,
        ),
        {"GRAPHGUARD_AGREE_SECONDS": "2"},
    ),
    Fault(
        "one collective more at a later capture",
        "enforce",
        "capture",
        at_capture.captures_otherwise_again,
        RAISES_AT_CAPTURE,
    ),
    Fault(
        "a later capture fails on one rank",
        "enforce",
        "capture",
        at_capture.a_capture_fails_again,
        both(Side(End.FINISHED, log="is not captured: rank 1 of the group failed"), decidable=True),
    ),
    Fault(
        "reduction of an all-reduce",
        "observe",
        "capture",
        at_capture.captures(at_capture.other_reduction, one_size),
        both(Side(End.ANY, ("captures-differ", "differs")), decidable=True),
    ),
    Fault(
        "a size missing on one rank",
        "observe",
        "capture",
        at_capture.captures_sizes("1x2", "2x2", "4x2", "16x2", body=one_size),
        both(Side(End.ANY, ("captures-differ", "differs")), decidable=True),
    ),
]

_OBSERVED = {
    "wrong graph": serves(replaced("drafter 8x2 > 16x2"), body=one_size),
    "wrong graph, first to come": serves(replaced("drafter 8x2 > 16x2"), body=one_size, first=True),
    "eager against graph": serves(replaced("drafter 8x2 > eager"), body=one_size),
    "graph against eager": serves(
        replaced("drafter 8x2 > 8x2"), usual=replaced("drafter 8x2 > eager"), body=one_size
    ),
    "drafter skipped": serves(SKIPPED, body=one_size),
    "drafter run twice": serves(TWICE, body=one_size, at=AT + 1),
    "roles swapped": serves(SWAPPED, body=one_size),
    "a round ahead": serves(AHEAD, body=one_size, at=AT - 1),
    "a round repeated": serves(REPEATED, body=one_size, at=AT + 1),
    "prefill against decode": serves(replaced("drafter 8x2:prefill > eager"), body=one_size),
    "digests equal in their first half": at_launch.publishes_a_twin(key=False),
    "digests equal, families not": at_launch.publishes_a_twin(key=True),
}

_REFUSED = {
    "batch that does not fit": serves(replaced("drafter 12x2")),
    "drafter skipped": serves(SKIPPED),
    "drafter run twice": serves(TWICE, at=AT + 1),
    "roles swapped": serves(SWAPPED),
    "a round ahead": serves(AHEAD, at=AT - 1),
    "prefill against decode": serves(replaced("drafter 8x2:prefill")),
    "digests equal in their first half": at_launch.publishes_a_twin(key=False),
    "digests equal, families not": at_launch.publishes_a_twin(key=True),
    "a tensor moved": moves_a_tensor(on_divergence={"input_address": "eager"}),
    "a tensor moved, policy raise": moves_a_tensor(),
}

_REFUSED_FIRST = {
    "wrong graph, first to come": serves(replaced("drafter 4x2"), first=True),
    "drafter skipped, first to come": serves(SKIPPED, first=True),
    "prefill against decode, first to come": serves(replaced("drafter 8x2:prefill"), first=True),
}

_ALL_EAGER = Expected(
    Side(End.FINISHED), Side(End.FINISHED, ("adopted",)), decidable=True, verdict="eager"
)
_ALL_RAISE = Expected(
    Side(End.RAISED, (), "GuardMismatch"),
    Side(End.RAISED, ("adopted",), "GuardMismatch"),
    decidable=True,
    launches=False,
)

_AT_LAUNCH = [
    *(Fault(name, "observe", "launch", p, OBSERVED) for name, p in _OBSERVED.items()),
    *(Fault(name, "enforce", "launch", p, REFUSES_LAST) for name, p in _REFUSED.items()),
    *(Fault(name, "enforce", "launch", p, REFUSED_FIRST) for name, p in _REFUSED_FIRST.items()),
    Fault("wrong graph", "enforce", "launch", serves(replaced("drafter 4x2")), ADOPTS),
    Fault("eager against graph", "enforce", "launch", at_launch.knows_a_quarantine_alone(), ADOPTS),
    Fault(
        "eager against graph, first to come",
        "enforce",
        "launch",
        at_launch.knows_a_quarantine_alone(first=True),
        ARE_ADOPTED,
    ),
    Fault(
        "a round repeated",
        "enforce",
        "launch",
        serves(REPEATED, at=AT + 1),
        Expected(
            Side(End.RAISED, ("adopted", "refused"), "RanksDiverged"),
            Side(End.ENDED, ("peer-refused",)),
            decidable=True,
        ),
    ),
    Fault(
        "a tensor moved, first to come",
        "enforce",
        "launch",
        moves_a_tensor(first=True, on_divergence={"input_address": "eager"}),
        _ALL_EAGER,
    ),
    Fault(
        "a tensor moved, policy raise, first to come",
        "enforce",
        "launch",
        moves_a_tensor(first=True),
        _ALL_RAISE,
    ),
    Fault(
        "a tensor moved, vote",
        "enforce",
        "launch",
        moves_a_tensor(vote_seconds=10.0, on_divergence={"input_address": "eager"}),
        _ALL_EAGER,
    ),
    Fault(
        "a tensor moved, policy raise, vote",
        "enforce",
        "launch",
        moves_a_tensor(vote_seconds=10.0),
        _ALL_RAISE,
    ),
    Fault(
        "drafter skipped, vote",
        "enforce",
        "launch",
        serves(SKIPPED, at=0, vote_seconds=10.0),
        both(
            Side(End.RAISED, ("refused", "peer-refused"), "RanksDiverged"),
            decidable=True,
            launches=False,
        ),
    ),
]

_PROCESSES = [
    Fault("dies before it publishes", "enforce", "process", processes.dies_before_publishing, GONE),
    Fault("dies after it published", "enforce", "process", processes.dies_after_publishing, GONE),
    Fault("dies in a replay", "enforce", "process", processes.dies_in_a_replay, GONE),
    Fault(
        "dies before it publishes",
        "observe",
        "process",
        processes.dies_before_publishing,
        Expected(Side(End.KILLED), Side(End.ANY, ("peer-gone",))),
    ),
    Fault(
        "its program fails",
        "enforce",
        "process",
        processes.fails_by_itself,
        Expected(Side(End.RAISED, (), "RuntimeError"), Side(End.ENDED, ("peer-gone",))),
    ),
    Fault(
        "ends early",
        "enforce",
        "process",
        processes.ends_early,
        Expected(Side(End.FINISHED), Side(End.ENDED, ("peer-gone",))),
    ),
    Fault("stopped for a while", "enforce", "process", processes.is_stopped(1.2), NOTHING),
    Fault("stopped for a while", "observe", "process", processes.is_stopped(1.2), NOTHING),
    Fault(
        "stopped for less than a vote takes",
        "enforce",
        "process",
        processes.is_stopped(0.8, vote_seconds=10.0),
        NOTHING,
    ),
    Fault(
        "stopped for longer than a vote takes",
        "enforce",
        "process",
        processes.is_stopped(1.5, vote_seconds=0.7),
        Expected(
            Side(End.RAISED, ("peer-refused",), "RanksDiverged"),
            Side(End.RAISED, ("vote-timed-out", "peer-refused"), "RanksDiverged"),
            launches=False,
        ),
    ),
    Fault(
        "dies before a vote",
        "enforce",
        "process",
        processes.dies_before_a_vote,
        Expected(
            Side(End.KILLED),
            Side(End.RAISED, ("peer-gone", "vote-timed-out", "peer-refused"), "RanksDiverged"),
            launches=False,
        ),
    ),
    Fault(
        "its child uses the guard",
        "enforce",
        "process",
        processes.forks,
        both(Side(End.FINISHED)),
    ),
    Fault("dies, and comes back", "enforce", "process", processes.comes_back, GONE),
]

_DAMAGED = Expected(
    Side(End.RAISED, ("damaged",), "RanksDiverged"), Side(End.ENDED, ("peer-refused",))
)
_SEEN_DAMAGED = Expected(Side(End.FINISHED, ("damaged",)), Side(End.FINISHED))

_MEMORY = [
    Fault("slot damaged", "enforce", "memory", damage.damages(damage.slot), _DAMAGED),
    Fault("slot damaged", "observe", "memory", damage.damages(damage.slot), _SEEN_DAMAGED),
    Fault("decision damaged", "enforce", "memory", damage.damages(damage.cell), _DAMAGED),
    Fault(
        "trouble word damaged", "enforce", "memory", damage.damages(damage.trouble_word), _DAMAGED
    ),
    Fault(
        "trouble word damaged",
        "observe",
        "memory",
        damage.damages(damage.trouble_word),
        _SEEN_DAMAGED,
    ),
    Fault(
        "pace damaged", "observe", "memory", damage.damages(damage.passed_word, 1), _SEEN_DAMAGED
    ),
    Fault("pace damaged", "enforce", "memory", damage.damages(damage.passed_word), NOTHING),
    Fault(
        "no room for the ledger",
        "enforce",
        "memory",
        damage.no_room_for_the_ledger,
        both(Side(End.RAISED, (), "LedgerError"), launches=False),
    ),
    Fault(
        "no room for the ledger",
        "observe",
        "memory",
        damage.no_room_for_the_ledger,
        both(Side(End.FINISHED, log="are not compared")),
    ),
    Fault("black boxes removed", "enforce", "memory", damage.box_directory_removed, NOTHING),
    Fault("no black box", "enforce", "memory", damage.no_black_box, NOTHING),
    Fault(
        "the manifest cannot be written",
        "enforce",
        "memory",
        damage.no_manifest,
        Expected(Side(End.RAISED, (), "ManifestError"), MISSING, launches=False),
        {"GRAPHGUARD_AGREE_SECONDS": "1"},
    ),
]

_PACE = [
    Fault(
        "1,100 steps ahead",
        "observe",
        "pace",
        ahead.runs_ahead,
        Expected(Side(End.FINISHED, ("lapped",)), Side(End.FINISHED)),
    ),
    Fault(
        "1,100 steps ahead",
        "enforce",
        "pace",
        ahead.runs_ahead,
        Expected(Side(End.FINISHED), Side(End.RAISED, (), "RanksDiverged")),
    ),
    Fault("a graph is taken out of use", "enforce", "pace", ahead.quarantines, NOTHING),
]

_SOUND = [
    *(Fault("no fault", m, "none", ahead.no_fault, NOTHING) for m in ("off", "observe", "enforce")),
    Fault("no fault, vote", "enforce", "none", ahead.no_fault_with_votes, NOTHING),
]

FAULTS = {
    fault.key: fault
    for fault in (*_AT_CAPTURE, *_AT_LAUNCH, *_PROCESSES, *_MEMORY, *_PACE, *_SOUND)
}

_GOES_WRONG = both(Side(End.ANY))

UNGUARDED = {
    fault.key: fault
    for fault in (
        *(Fault(n, "off", "capture", p, _GOES_WRONG) for n, p in _CALLS.items()),
        Fault("wrong graph", "off", "launch", serves(replaced("drafter 8x2 > 16x2")), _GOES_WRONG),
        Fault(
            "eager against graph",
            "off",
            "launch",
            serves(replaced("drafter 8x2"), usual=replaced("drafter 7x2 > 8x2")),
            _GOES_WRONG,
        ),
        Fault("drafter skipped", "off", "launch", serves(SKIPPED), _GOES_WRONG),
        Fault("drafter run twice", "off", "launch", serves(TWICE), _GOES_WRONG),
        Fault("roles swapped", "off", "launch", serves(SWAPPED), _GOES_WRONG),
        Fault("its program fails", "off", "process", processes.fails_by_itself, _GOES_WRONG),
    )
}
"""What the same faults do to programs that nothing guards."""
