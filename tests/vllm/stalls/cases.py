"""What is made to go wrong, and what is right to say of it."""

from __future__ import annotations

import msgspec

from tests.vllm.engine import Fault, FaultKind
from tests.vllm.engine.emulation.settings import Place

STOP, KILL, IDLE = "stop", "kill", "idle"
"""What is done from outside: SIGSTOP, SIGKILL, and nothing at all."""


class Case(msgspec.Struct, frozen=True, kw_only=True):
    """Something that happens to one rank of an engine of two.

    Attributes:
        name: In words, for the table.
        rank: The rank that it happens to.
        inject: A fault, or one of those from outside.
        right: The classes that are right to say of it; none if nothing may be said.
        may_be_silent: Whether it is right, too, to say nothing: vLLM ends the engine at once.
        hold: For how many seconds it lasts, where the harness ends it; 0 if it ends by itself or
            with the engine.
        startup: Whether it happens in start-up.
    """

    name: str
    rank: int = 1
    inject: Fault | str
    right: tuple[str, ...] = ()
    may_be_silent: bool = False
    hold: float = 0.0
    startup: bool = False

    @property
    def blamed(self) -> tuple[int, ...]:
        """The ranks that may be blamed."""
        return (self.rank,) if self.right else ()


def _fault(
    kind: FaultKind, rank: int, place: Place = Place.FORWARD, seconds: float = 0.0, step: int = 1
) -> Fault:
    return Fault(kind=kind, rank=rank, place=place, seconds=seconds, step=step)


_WARNED = 13.0
"""Long enough for a warning of vLLM, as that is set here."""

STOPPED = tuple(
    Case(name=f"SIGSTOP of rank {rank}", rank=rank, inject=STOP, right=("stopped",))
    for rank in (0, 1)
)
SPINS = Case(
    name="Python code that spins, before the launch",
    inject=_fault(FaultKind.SPINS, 1, Place.STEP),
    right=("host-stuck",),
)
SPINS_IN_LAUNCH = Case(
    name="Python code that spins, inside the launch",
    rank=0,
    inject=_fault(FaultKind.SPINS, 0, Place.FORWARD),
    right=("host-stuck",),
)
SPINS_IN_C = Case(
    name="C code that spins and holds the GIL",
    inject=_fault(FaultKind.SPINS_IN_C, 1, Place.STEP),
    right=("host-stuck",),
)
SKIPS = Case(
    name="an all-reduce that rank 1 skips",
    inject=Fault(kind=FaultKind.SKIPPED_ALL_REDUCE, rank=1),
    # Both ranks launch the same: what differs is inside. Where they have come to shows later.
    right=("device", "ranks-diverged"),
)
RAISES = Case(
    name="an exception on rank 1, which vLLM does not ask for a result",
    inject=_fault(FaultKind.RAISES, 1),
    right=("worker-error",),
)
RAISES_ON_0 = Case(
    name="an exception on rank 0",
    rank=0,
    inject=_fault(FaultKind.RAISES, 0),
    right=("worker-error",),
    may_be_silent=True,
)
KILLED = Case(name="SIGKILL of rank 1", inject=KILL, right=("process-died",), may_be_silent=True)

RECOVERABLE = tuple(
    msgspec.structs.replace(case, hold=_WARNED)
    for case in (*STOPPED, SPINS, SPINS_IN_LAUNCH, SPINS_IN_C)
)
BENIGN = (
    Case(name="SIGSTOP for 3 s, and on", inject=STOP, hold=3.0),
    Case(
        name="a step that sleeps 8 s, and says so (`graphguard.slow`)",
        inject=_fault(FaultKind.SLEEPS_AS_ANNOUNCED, 1, seconds=8.0),
    ),
    Case(name="a step that compiles (Inductor)", inject=_fault(FaultKind.COMPILES, 1)),
    Case(name="idle", inject=IDLE, hold=20.0),
)
SLEEPS = Case(
    name="a step that sleeps 8 s, and says nothing",
    inject=_fault(FaultKind.SLEEPS, 1, seconds=8.0),
)
FATAL = (RAISES, KILLED, RAISES_ON_0)
STARTUP = tuple(
    Case(
        name=f"start-up: rank 1 hangs {where}",
        inject=_fault(FaultKind.SPINS, 1, place, step=0),
        right=("host-stuck",),
        hold=45.0,
        startup=True,
    )
    for place, where in (
        (Place.LOAD, "while it loads"),
        (Place.PROFILE, "while memory is measured"),
        (Place.CAPTURE, "before it captures"),
    )
)
