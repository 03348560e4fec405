"""What vLLM's internals must look like for each part of the plugin, written down once.

A name that has moved switches one part off and is said in a sentence; it never breaks a step. Only
looking counts: a version that nobody has tried is guarded too where it looks as expected.

A part imports what it looks at. So ask for it where vLLM has just imported the module that is to be
hooked: a runner takes seconds to import, which a process without a model should not pay. By then
that module has imported the others that its part looks at, or none of them imports it.
"""

from __future__ import annotations

from graphguard.vllm.contract.breakable import BREAKABLE
from graphguard.vllm.contract.communicators import COLLECTIVES
from graphguard.vllm.contract.engine import CAPTURE, DATA_PARALLEL, METRICS, SCHEDULER
from graphguard.vllm.contract.expectation import Expectation, Part, Variant
from graphguard.vllm.contract.inspection import Lack, lacks
from graphguard.vllm.contract.runner_v1 import PIECEWISE, V1_DRAFTER, V1_PADDING, V1_TARGET
from graphguard.vllm.contract.runner_v2 import V2_PADDING, V2_TARGET
from graphguard.vllm.contract.speculators_v2 import V2_DRAFTER
from graphguard.vllm.contract.stalls import STALLS, V1_STALLS, V2_STALLS
from graphguard.vllm.contract.uniform_graphs import UNIFORM_GRAPHS
from graphguard.vllm.contract.versions import KNOWN_VERSIONS, known_version, vllm_version

__all__ = [
    "KNOWN_VERSIONS",
    "VARIANTS",
    "Expectation",
    "Part",
    "Variant",
    "known_version",
    "missing",
    "variant",
    "vllm_version",
]

VARIANTS: dict[Part, tuple[Variant, ...]] = {
    Part.V1_TARGET: V1_TARGET,
    Part.V1_DRAFTER: V1_DRAFTER,
    Part.V1_PADDING: V1_PADDING,
    Part.V2_TARGET: V2_TARGET,
    Part.V2_DRAFTER: V2_DRAFTER,
    Part.V2_PADDING: V2_PADDING,
    Part.BREAKABLE: BREAKABLE,
    Part.PIECEWISE: PIECEWISE,
    Part.COLLECTIVES: COLLECTIVES,
    Part.SCHEDULER: SCHEDULER,
    Part.CAPTURE: CAPTURE,
    Part.METRICS: METRICS,
    Part.UNIFORM_GRAPHS: UNIFORM_GRAPHS,
    Part.DATA_PARALLEL: DATA_PARALLEL,
    Part.STALLS: STALLS,
    Part.V1_STALLS: V1_STALLS,
    Part.V2_STALLS: V2_STALLS,
}
"""The shapes that each part can work with, the newest first."""


def missing(part: Part) -> list[str]:
    """Return what vLLM does not have as a part expects it; nothing if the part can be armed.

    A part can be armed if one of its variants holds. If none does, the sentences are about the one
    that comes closest.

    Args:
        part: The part.

    Returns:
        Sentences. Whatever vLLM is, nothing is raised.
    """
    closest = min((_lacking(candidate) for candidate in VARIANTS[part]), key=_distance)
    return [lack.sentence for lack in closest]


def variant(part: Part) -> str | None:
    """Return the name of the shape of vLLM that a part works with, or None without one."""
    for candidate in VARIANTS[part]:
        if not _lacking(candidate):
            return candidate.name
    return None


def _lacking(candidate: Variant) -> list[Lack]:
    found = [lack for expected in candidate.expectations for lack in lacks(expected)]
    return list(dict.fromkeys(found))


def _distance(found: list[Lack]) -> tuple[int, int]:
    """Sort a variant whose modules are not even there behind one with names that have moved."""
    return sum(lack.whole_module for lack in found), len(found)
