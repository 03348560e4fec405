"""Which ranks a vLLM worker's steps are compared with."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from graphguard.environment import Mode
from graphguard.log import logger

if TYPE_CHECKING:
    from graphguard.agreement.group import Agreement

GETTERS = {
    "target": ("get_tp_group", "get_pp_group"),
    # Only the last pipeline stage has a drafter.
    "drafter": ("get_tp_group",),
}
"""Groups whose collectives every step of a model runs, the innermost first. Data-parallel ranks
agree on their batch by vLLM's own all-reduce, and may rightly differ in what they run eagerly."""


def step_groups(role: str) -> list[Any]:
    """Return vLLM's groups of more than one rank that the steps of a model communicate on."""
    from vllm.distributed import parallel_state

    groups = [getattr(parallel_state, getter)() for getter in GETTERS[role]]
    return [group for group in groups if group.world_size > 1]


def agreements(mode: Mode, role: str) -> list[Agreement]:
    """Return the agreements for the steps of a model; in observe those that can be had.

    Raises:
        ConfigurationError: When enforcing, if torch does not tell the store of a group.
    """
    found = [_agreement(group, mode) for group in step_groups(role)]
    return [agreement for agreement in found if agreement is not None]


def _agreement(group: Any, mode: Mode) -> Agreement | None:  # noqa: ANN401 - vLLM's own
    name: str = group.unique_name
    if name in _agreements:
        return _agreements[name]
    from graphguard.agreement.group import Agreement
    from graphguard.agreement.store import GroupMembers, store_of
    from graphguard.recorders.c10d_groups import format_ranks

    ranks = tuple(group.ranks)
    members = GroupMembers(group.rank_in_group, ranks, f"{name}[{format_ranks(ranks)}]")
    try:
        agreement = Agreement(store_of(group.cpu_group), members, mode)
    except Exception as error:
        if mode is Mode.ENFORCE:
            raise
        logger().warning("ranks of %s are not compared: %s", members.name, error)
        return None
    _agreements[name] = agreement
    return agreement


_agreements: dict[str, Agreement] = {}
