"""What a part of the plugin expects of vLLM's internals, as data."""

from __future__ import annotations

from enum import Enum

import msgspec


class Part(str, Enum):
    """A part of the plugin that is armed, or stays out of the way, on its own."""

    V1_TARGET = "v1-target"
    V1_DRAFTER = "v1-drafter"
    V1_PADDING = "v1-padding"
    V2_TARGET = "v2-target"
    V2_DRAFTER = "v2-drafter"
    V2_PADDING = "v2-padding"
    BREAKABLE = "breakable"
    PIECEWISE = "piecewise"
    COLLECTIVES = "collectives"
    SCHEDULER = "scheduler"
    CAPTURE = "capture"
    METRICS = "metrics"
    UNIFORM_GRAPHS = "uniform-graphs"
    DATA_PARALLEL = "data-parallel"
    STALLS = "stalls"
    V1_STALLS = "v1-stalls"
    V2_STALLS = "v2-stalls"

    def __str__(self) -> str:
        return self.value


class Expectation(msgspec.Struct, frozen=True, kw_only=True):
    """What one class, function or constant of vLLM must look like.

    Attributes:
        module: The module that it is reached through. Where vLLM imports a function by its name,
            this is the module that imports it: a wrapper put elsewhere would never be called.
        path: Its name in the module: ``CudagraphDispatcher.dispatch``.
        begins_with: Its first parameters, in this order, after ``self``.
        parameters: Parameters that it must have, in any order.
        fields: Fields that it must have if it is a dataclass or a named tuple.
        sets: Attributes that its instances must have: a method assigns them, or the class has them.
        uses: Names that its own code must mention: what is hooked must still be on the way.
        if_loaded: Whether it is only looked at if the process has loaded the module already.
    """

    module: str
    path: str
    begins_with: tuple[str, ...] = ()
    parameters: tuple[str, ...] = ()
    fields: tuple[str, ...] = ()
    sets: tuple[str, ...] = ()
    uses: tuple[str, ...] = ()
    if_loaded: bool = False

    @property
    def name(self) -> str:
        """The full name, as sentences have it."""
        return f"{self.module}.{self.path}"


class Variant(msgspec.Struct, frozen=True, kw_only=True):
    """One shape of vLLM's internals that a part knows how to work with.

    Attributes:
        part: The part.
        name: What tells this shape from the part's other ones.
        versions: Versions of vLLM that have it. For readers: what decides is what is found.
        expectations: All of what it takes.
    """

    part: Part
    name: str
    versions: tuple[str, ...]
    expectations: tuple[Expectation, ...]
