"""What is checked: the runs that must find nothing, and the mutations that must be found.

A run is a model with its sizes. Its figures (states, seconds) are in ``README.md``.
"""

from __future__ import annotations

from typing import NamedTuple

NO_DEADLOCK = "no_deadlock"
EVERY_WAIT_ENDS = "every_wait_ends"


class Run(NamedTuple):
    """One search through all states of a model.

    Attributes:
        model: The file without its suffix.
        variant: What of the protocol it is about, in a word or two.
        ranks: How many ranks.
        defines: Sizes and choices, as ``-D`` of the C preprocessor.
        waits: Whether to look for waits that never end, instead of broken assertions and deadlocks.
        long: Whether ``--short`` leaves it out.
        mutation: What is broken on purpose, if anything.
        breaks: The claims that it breaks: one of them must be reported. Empty for a sound run.
    """

    model: str
    variant: str
    ranks: int
    defines: tuple[str, ...]
    waits: bool = False
    long: bool = False
    mutation: str = ""
    breaks: tuple[str, ...] = ()


RUNS = (
    Run("observe", "observe", 2, ("STEPS=4",)),
    Run("observe", "observe", 3, ("STEPS=3",)),
    Run("enforce", "wait-free", 2, ("STEPS=4", "DEATHS=0")),
    Run("enforce", "wait-free", 3, ("STEPS=3", "DEATHS=0"), long=True),
    Run("enforce", "a rank dies", 2, ("STEPS=4", "DEATHS=1")),
    Run("enforce", "a rank dies", 3, ("STEPS=2", "DEATHS=1", "COARSE")),
    Run(
        "enforce", "without lead rule", 2, ("STEPS=4", "DEATHS=0", "NO_LEAD_RULE", "MAY_BE_LAPPED")
    ),
    Run("vote", "vote", 2, ("STEPS=3", "DEATHS=0", "ALL_VOTE")),
    Run("vote", "vote", 3, ("STEPS=3", "DEATHS=0", "ALL_VOTE", "COARSE")),
    Run("vote", "vote, a rank dies", 2, ("STEPS=3", "DEATHS=1", "ALL_VOTE")),
    Run("vote", "vote, a rank dies", 3, ("STEPS=3", "DEATHS=1", "ALL_VOTE", "COARSE")),
    Run("vote", "vote, two die", 3, ("STEPS=2", "DEATHS=2", "ALL_VOTE", "COARSE")),
    Run("vote", "waits end", 2, ("STEPS=2", "DEATHS=1", "ALL_VOTE", "POLLING"), waits=True),
    Run(
        "vote",
        "waits end",
        3,
        ("STEPS=1", "DEATHS=1", "ALL_VOTE", "COARSE", "POLLING"),
        waits=True,
        long=True,
    ),
    Run("vote", "mixed", 2, ("STEPS=3", "DEATHS=0")),
    Run("vote", "mixed", 3, ("STEPS=2", "DEATHS=0", "COARSE"), long=True),
    Run("vote", "mixed, a rank dies", 2, ("STEPS=3", "DEATHS=1")),
    Run("vote", "mixed, a rank dies", 3, ("STEPS=1", "DEATHS=1", "COARSE")),
    Run("notices", "two announcers", 2, ("STEPS=3", "ANNOUNCERS=2")),
    Run("notices", "two announcers", 3, ("STEPS=2", "ANNOUNCERS=2"), long=True),
    Run("notices", "one tries twice", 2, ("STEPS=4", "ANNOUNCERS=1", "TRIES=2")),
    Run("notices", "one tries twice", 3, ("STEPS=3", "ANNOUNCERS=1", "TRIES=2")),
)


def _broken(
    model: str, variant: str, mutation: str, breaks: str, *defines: str, waits: bool = False
) -> Run:
    return Run(model, variant, 2, defines, waits, False, mutation, tuple(breaks.split()))


_O, _E = ("STEPS=3",), ("STEPS=4", "DEATHS=0")
_V, _N = ("STEPS=2", "DEATHS=0"), ("STEPS=3", "ANNOUNCERS=1")

MUTATIONS = (
    _broken("observe", "observe", "NO_FENCE", "O1_one_of_two_knew", *_O),
    _broken("observe", "observe", "NO_STAMP_CHECK", "O2_compared_the_same_step", *_O),
    _broken("observe", "observe", "QUIET_LAPPED", "O1_one_of_two_knew", *_O),
    _broken("observe", "observe", "RELAXED_PASSED", "O3_lapped_peer_is_ahead", *_O),
    _broken("enforce", "wait-free", "PLAIN_DECISION", "E1_all_launch_the_same", *_E),
    _broken(
        "enforce",
        "without lead rule",
        "NO_STAMP_CHECK",
        "E2_one_step",
        *_E,
        "NO_LEAD_RULE",
        "MAY_BE_LAPPED",
    ),
    _broken("enforce", "wait-free", "NO_LEAD_RULE", "E4_nobody_lapped", *_E),
    _broken("enforce", "wait-free", "LEAD=SLOTS", "E4_nobody_lapped", *_E),
    _broken("enforce", "wait-free", "QUIET_LEAD_RULE", NO_DEADLOCK, *_E),
    _broken("enforce", "wait-free", "QUIET_REFUSAL", NO_DEADLOCK, *_E),
    _broken("enforce", "wait-free", "REFUSER_GOES_ON", "E5_in_order", *_E),
    _broken("vote", "vote", "VOTE_WITHOUT_CELL", "V1_one_outcome", *_V, "ALL_VOTE"),
    _broken("vote", "vote", "PLAIN_DECISION", "V1_one_outcome", *_V, "ALL_VOTE"),
    _broken(
        "vote",
        "vote, a rank dies",
        "UNBOUNDED_WAIT",
        NO_DEADLOCK,
        "STEPS=2",
        "DEATHS=1",
        "ALL_VOTE",
    ),
    _broken(
        "vote",
        "waits end",
        "UNBOUNDED_WAIT",
        EVERY_WAIT_ENDS,
        "STEPS=2",
        "DEATHS=1",
        "ALL_VOTE",
        "POLLING",
        waits=True,
    ),
    _broken("vote", "mixed", "SAME_CODE", "V1_one_outcome", *_V),
    _broken("vote", "mixed", "NO_LEAD_RULE", "E4_nobody_lapped", "STEPS=3", "DEATHS=0"),
    _broken("vote", "mixed", "QUIET_LEAD_RULE", NO_DEADLOCK, *_V),
    _broken("notices", "one announcer", "NO_CONFIRM", "N1_all_or_none", *_N),
    _broken("notices", "one announcer", "NO_WITHDRAW", "N1_all_or_none", *_N),
    _broken("notices", "one announcer", "NO_READER_FENCE", "N1_all_or_none", *_N),
    _broken("notices", "one announcer", "NO_ANNOUNCER_FENCE", "N1_all_or_none", *_N),
    _broken("notices", "one announcer", "EARLY_CONFIRM", "N1_all_or_none", *_N),
    _broken("notices", "one announcer", "LATE_WITHDRAW", "N1_all_or_none", *_N),
    _broken("notices", "one announcer", "PLAIN_CONFIRM", "N2_final_is_final", *_N),
    _broken("notices", "one announcer", "PLAIN_WITHDRAW", "N2_final_is_final", *_N),
    _broken(
        "notices", "two announcers", "LEARNED_ORDER", "N3_one_order", "STEPS=3", "ANNOUNCERS=2"
    ),
)
