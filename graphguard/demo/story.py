"""The story of the demo: everything that was seen, and whether it came out as it should."""

from __future__ import annotations

import signal

import msgspec

from graphguard.agreement.watcher import STUCK_EXIT_CODE
from graphguard.audit import Finding
from graphguard.blackbox.choosing import Chosen
from graphguard.blackbox.events import DivergenceKind, Event
from graphguard.blackbox.merge import merge
from graphguard.verdict import Action, Reason, Verdict

TOLERANCE = 1e-9
"""How far double precision may be from the eager run: padding changes the order of sums."""

ERROR_EXIT_CODE = 1
"""What Python ends with after an error that nobody has caught."""


class Stand(msgspec.Struct):
    """Where a rank stood when it no longer moved."""

    rank: int
    step: str
    doing: str
    stack: list[str]


class Unguarded(msgspec.Struct):
    """The run without a guard."""

    outcome: str
    seconds: float
    waited_seconds: float
    ranks: list[Stand]
    wrong_outputs: int


class StepResult(msgspec.Struct):
    """What every rank did in one step, and how far its output was from the eager run's."""

    batch: str
    role: str
    verdicts: list[str]
    difference: float


class Adoption(msgspec.Struct):
    """The step in which only one rank sees that it cannot replay, and all do as it does.

    Attributes:
        rank: Whose tensor has moved. It comes first.
        step: What the ranks did, in their order.
    """

    rank: int
    step: StepResult

    @property
    def as_claimed(self) -> bool:
        """Whether that rank ran eagerly, the others did the same, and the outputs are right."""
        verdicts = [str(Verdict(Action.EAGER, Reason.ADOPTED))] * len(self.step.verdicts)
        if self.rank < len(verdicts):
            verdicts[self.rank] = str(Verdict(Action.EAGER, Reason.INPUT_ADDRESS))
        return (
            len(verdicts) > 1
            and self.step.verdicts == verdicts
            and self.step.difference <= TOLERANCE
        )


class Guarded(msgspec.Struct):
    """The run with the guard.

    Attributes:
        outcome: How it ended.
        seconds: How long it took.
        steps: Its steps.
        equal_to_eager: Whether all outputs equal those of the eager run.
        adoption: The step after them, if the ranks came so far.
        agreed_launches: In how many launches the black boxes show that all ranks did the same.
    """

    outcome: str
    seconds: float
    steps: list[StepResult]
    equal_to_eager: bool
    adoption: Adoption | None
    agreed_launches: int

    @property
    def as_claimed(self) -> bool:
        """Whether it ended, with right outputs, and ranks that agreed on every launch."""
        return (
            self.outcome == "completed"
            and self.equal_to_eager
            and self.adoption is not None
            and self.adoption.as_claimed
            and self.agreed_launches == len(self.steps) + 1
        )


class Audit(msgspec.Struct):
    """The audit of what the guarded run recorded, and of a copy with a planted difference."""

    recorded: list[Finding]
    planted: list[Finding]


class RankEnd(msgspec.Struct):
    """How a rank ended.

    Attributes:
        rank: Its number.
        exit_code: How it ended by itself, or None if it had to be ended.
        seconds: From the divergence, or from the death of a rank, to its end.
    """

    rank: int
    exit_code: int | None
    seconds: float | None


class Refusal(msgspec.Struct):
    """The error of a rank that would have launched something else.

    Attributes:
        rank: Its number.
        launch: Which launch of the group it refused.
        message: What the error says.
        seconds: How long after the divergence it was raised.
    """

    rank: int
    launch: int
    message: str
    seconds: float


class Diverging(msgspec.Struct):
    """The run in which one rank would launch something else than the others have launched.

    Attributes:
        outcome: How it ended.
        seconds: How long it took, the start of the processes included.
        refusal: The error, if there was one.
        sides: The roles that ranks would launch there, by their black boxes.
        launched: Which ranks have begun to, by their black boxes.
        ends: How each rank ended.
    """

    outcome: str
    seconds: float
    refusal: Refusal | None
    sides: list[str]
    launched: list[int]
    ends: list[RankEnd]

    @property
    def as_claimed(self) -> bool:
        """Whether one was refused before it launched, and whoever had launched was ended."""
        if self.outcome != "ended" or self.refusal is None:
            return False
        others = [end.rank for end in self.ends if end.rank != self.refusal.rank]
        expected = {**dict.fromkeys(others, STUCK_EXIT_CODE), self.refusal.rank: ERROR_EXIT_CODE}
        return (
            len(self.sides) > 1
            and all(side in self.refusal.message for side in self.sides)
            and bool(others)
            and self.launched == others
            and {end.rank: end.exit_code for end in self.ends} == expected
        )


class Killed(msgspec.Struct):
    """The run in which one rank was killed in the middle of a replay.

    Attributes:
        outcome: How it ended.
        seconds: How long it took, the start of the processes included.
        rank: The one that was killed.
        ends: How each rank ended.
        black_boxes: What they have left.
    """

    outcome: str
    seconds: float
    rank: int
    ends: list[RankEnd]
    black_boxes: Chosen

    @property
    def as_claimed(self) -> bool:
        """Whether the black boxes show where each rank was, and the others were ended."""
        codes = {end.rank: end.exit_code for end in self.ends}
        expected = {**dict.fromkeys(codes, STUCK_EXIT_CODE), self.rank: -signal.SIGKILL}
        return self.outcome == "ended" and codes == expected and self._is_shown(sorted(codes))

    def _is_shown(self, ranks: list[int]) -> bool:
        timeline = merge(self.black_boxes.boxes)
        standings = [standing for standing in timeline.standings if standing.group]
        rank_of = [box.rank for box in timeline.boxes]
        found_it_gone = {
            rank_of[member]
            for member, record in timeline.divergences
            if record.detail == DivergenceKind.PEER_GONE and record.peer_rank == self.rank
        }
        return (
            [rank_of[standing.member] for standing in standings] == ranks
            and all(
                standing.begun is not None
                and standing.begun.event == Event.REPLAY_BEGIN
                and standing.behind == (1 if rank_of[standing.member] == self.rank else 0)
                for standing in standings
            )
            and found_it_gone == set(ranks) - {self.rank}
            and timeline.first_difference is None
            and not timeline.damaged
        )


class Story(msgspec.Struct):
    """Everything the demo saw."""

    ranks: int
    unguarded: Unguarded
    guarded: Guarded
    audit: Audit
    diverging: Diverging
    killed: Killed
    manifests: list[str]
    black_boxes: list[str]
    troubles: list[str] = []

    @property
    def as_claimed(self) -> bool:
        """Whether everything came out as graphguard's README says."""
        return (
            self.unguarded.outcome == "hang"
            and self.guarded.as_claimed
            and not self.audit.recorded
            and bool(self.audit.planted)
            and self.diverging.as_claimed
            and self.killed.as_claimed
        )
