"""What the emulation is told: which graphs, which faults, and where its trace goes."""

from __future__ import annotations

import os
from enum import Enum
from pathlib import Path

import msgspec

VARIABLE = "GRAPHGUARD_TEST_EMULATION"
"""The environment variable that carries the settings, as JSON, into every process of the engine."""


class Piecewise(str, Enum):
    """Which wrapper of vLLM stands around a model that is dispatched to piecewise graphs."""

    WRAPPER = "wrapper"
    """``CUDAGraphWrapper(PIECEWISE)`` around the drafter's model; the target runs eagerly."""
    BREAKABLE = "breakable"
    """``BreakableCUDAGraphWrapper`` around target and drafter, as vLLM's own GPU runner does."""


class FaultKind(str, Enum):
    """What goes wrong, on one rank, as if vLLM itself had decided so."""

    EAGER = "eager"
    """The dispatcher finds no graph and returns NONE."""
    EAGER_ALONE = "eager-alone"
    """The dispatcher returns NONE when data-parallel ranks have agreed on a graph."""
    LARGER_GRAPH = "larger-graph"
    """The dispatcher returns the next larger graph."""
    SKIPPED_DRAFTER = "skipped-drafter"
    """The drafter is not run and proposes the token 0."""
    SKIPPED_ALL_REDUCE = "skipped-all-reduce"
    """One all-reduce is left out."""
    LIVE_PADDING = "live-padding"
    """A padded slot holds the slot and the blocks of the first request."""

    RAISES = "raises"
    """An exception."""
    SPINS = "spins"
    """Python code that does not end before it is released."""
    SPINS_IN_C = "spins-in-c"
    """C code that holds the interpreter's lock and does not end before it is released."""
    SLEEPS = "sleeps"
    """Nothing happens for a while."""
    SLEEPS_AS_ANNOUNCED = "sleeps-as-announced"
    """The same, and ``graphguard.slow`` says so."""
    COMPILES = "compiles"
    """A function is compiled by Inductor, with nothing in its cache."""


class Place(str, Enum):
    """Where a rank is when it raises, spins, sleeps or compiles."""

    STEP = "step"
    """In a step, before its batch is prepared."""
    FORWARD = "forward"
    """Where the model is run or its graph replayed."""
    LOAD = "load"
    """In start-up, before the model is loaded."""
    PROFILE = "profile"
    """In start-up, where the memory is measured."""
    CAPTURE = "capture"
    """In start-up, before the first graph is captured; not without graphs."""


class Fault(msgspec.Struct, frozen=True, kw_only=True):
    """One fault.

    Attributes:
        kind: What goes wrong.
        rank: The rank of the worker on which it does.
        step: The first step, counted from 1 by that worker, at which it may happen. With 0 an
            all-reduce can be left out of the captures at start-up too; the numbers below are then
            those of the graph that is captured.
        times: In how many steps it happens.
        role: The model whose dispatcher lies, for EAGER and LARGER_GRAPH.
        num_reqs: Happen only in a step of that many requests, or in any with None.
        num_tokens: Happen only in a step of that many tokens, or in any with None.
        place: Where it happens, for those that take time or raise. Start-up needs ``step=0``.
        seconds: How long it lasts, for those that sleep.
    """

    kind: FaultKind
    rank: int = 1
    step: int = 1
    times: int = 1
    role: str = "target"
    num_reqs: int | None = None
    num_tokens: int | None = None
    place: Place = Place.FORWARD
    seconds: float = 0.0


class Emulation(msgspec.Struct, frozen=True, kw_only=True):
    """The graphs that the engine captures.

    Attributes:
        mode: A ``CUDAGraphMode`` by name, or NONE for an engine that runs eagerly as the CPU build
            does and is only traced.
        sizes: The capture sizes, in tokens.
        piecewise: The wrapper for piecewise graphs.
        warmups: How often each shape runs before it is captured.
        profile: Whether ``profile_cudagraph_memory`` runs first, with its throw-away captures.
        asynchronous: Whether steps are scheduled before the tokens of the last one are known.
    """

    mode: str = "FULL_AND_PIECEWISE"
    sizes: tuple[int, ...] = (2, 4, 8, 16, 32)
    piecewise: Piecewise = Piecewise.WRAPPER
    warmups: int = 1
    profile: bool = False
    asynchronous: bool = False

    @property
    def graphs(self) -> bool:
        """Whether there are any graphs."""
        return self.mode != "NONE"


class Settings(msgspec.Struct, frozen=True, kw_only=True):
    """All that the plugin is told.

    Attributes:
        emulation: The graphs.
        faults: What goes wrong.
        directory: Where the traces of the workers go.
    """

    emulation: Emulation
    faults: tuple[Fault, ...] = ()
    directory: str


def file_of_faults(directory: Path) -> Path:
    """Return the file to which faults are added while the engine runs, one JSON line each."""
    return directory / "faults.jsonl"


def from_environment() -> Settings | None:
    """Return the settings of this process, or None where there are none."""
    text = os.environ.get(VARIABLE)
    return msgspec.json.decode(text, type=Settings) if text else None
