"""What is to become of a fault: how each side ends, and what it is told before."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from enum import Enum
from typing import Any

from tests.faults.job import Job

Program = Callable[[Job], None]


class End(str, Enum):
    """How a rank ends."""

    FINISHED = "finished"
    """It served all of its steps."""
    RAISED = "raised"
    """Its program got an error, and ended."""
    ENDED = "ended by graphguard"
    """It waited in a launch for what would not come, and its watcher ended it."""
    KILLED = "killed"
    """The fault killed it."""
    HUNG = "hung"
    """It was still waiting when the run was over."""
    CRASHED = "crashed"
    """gloo ended it, over a message of the wrong size."""
    ANY = "any"
    """Nothing is asked of it: without a fault in its program there would be nothing to end."""


@dataclass(frozen=True)
class Side:
    """What is to become of the faulty rank, or of the others.

    Attributes:
        end: How it ends.
        told: The kinds of differences of which it is told at least one; none where it is empty.
        also: Kinds that it may be told of besides.
        error: What it ends with, where it raises.
        log: What its log says.
    """

    end: End
    told: tuple[str, ...] = ()
    error: str = ""
    also: tuple[str, ...] = ()
    log: str = ""


@dataclass(frozen=True)
class Expected:
    """What is to become of a run.

    Attributes:
        faulty: Of the faulty rank.
        others: Of the others.
        decidable: Whether what each rank is about to do is enough to see the fault.
        launches: Whether any rank may launch the step that differs. Without a wait the first one
            to come may; after captures that differ none.
    """

    faulty: Side
    others: Side
    decidable: bool = False
    launches: bool = True

    @property
    def silent(self) -> bool:
        """Whether nothing may be said: it is no fault, or harms nobody."""
        return not any((s.told, s.error, s.log) != ((), "", "") for s in (self.faulty, self.others))


@dataclass(frozen=True)
class Fault:
    """One row of the matrix.

    Attributes:
        name: What goes wrong.
        mode: The mode of the guards.
        room: Where it goes wrong: capture, launch, process, memory, pace; none for no fault.
        program: What each rank runs.
        expected: What is to become of it.
        odd: The rank that does something else than the others.
        in_boxes: Whether the black boxes tell afterwards in which step ranks differed.
        environment: Variables of every rank.
    """

    name: str
    mode: str
    room: str
    program: Program
    expected: Expected
    odd: int = 1
    in_boxes: bool = False
    environment: Mapping[str, str] = field(default_factory=dict)

    @property
    def key(self) -> str:
        """By what the fault is asked for."""
        return f"{self.name}, {self.mode}"


def faults(
    room: str, mode: str, expected: Expected, programs: Mapping[str, Program], **fields: Any
) -> list[Fault]:
    """Return faults of which the same is expected."""
    return [Fault(name, mode, room, p, expected, **fields) for name, p in programs.items()]


def both(side: Side, **fields: Any) -> Expected:
    """Return what is expected where the faulty rank and the others are to end alike."""
    return Expected(side, side, **fields)


RAISES_AT_CAPTURE = both(
    Side(End.RAISED, ("captures-differ",), "AgreementError"), decidable=True, launches=False
)
REFUSES_LAST = Expected(
    Side(End.RAISED, ("refused",), "RanksDiverged"),
    Side(End.ENDED, ("peer-refused",)),
    decidable=True,
)
REFUSED_FIRST = Expected(
    Side(End.ENDED, ("peer-refused",)),
    Side(End.RAISED, ("refused", "peer-refused"), "RanksDiverged"),
    decidable=True,
)
ADOPTS = Expected(Side(End.FINISHED, ("adopted",)), Side(End.FINISHED), decidable=True)
ARE_ADOPTED = Expected(Side(End.FINISHED), Side(End.FINISHED, ("adopted",)), decidable=True)
OBSERVED = both(Side(End.ANY, ("differs",), also=("peer-gone",)), decidable=True)
GONE = Expected(Side(End.KILLED), Side(End.ENDED, ("peer-gone",)))
MISSING = Side(End.RAISED, (), "RankMissing", also=("peer-gone",))
NOTHING = both(Side(End.FINISHED))
GOES_WRONG = both(Side(End.ANY))
