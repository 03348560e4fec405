"""Which ranks a vLLM worker's steps are compared with."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, NamedTuple

from graphguard.environment import Mode
from graphguard.log import logger

if TYPE_CHECKING:
    from graphguard.agreement.group import Agreement

GETTERS = {
    "target": ("get_tp_group", "get_pp_group"),
    # Only the last pipeline stage has a drafter.
    "drafter": ("get_tp_group",),
}
"""Groups whose collectives every step of a model runs, the innermost first. Data-parallel ranks run
other batches, and are compared otherwise: see :mod:`graphguard.vllm.data_parallel`."""


class Coupling(NamedTuple):
    """Whether the launches of data-parallel ranks hold collectives of all of them.

    Attributes:
        coupled: Whether they are compared.
        why_not: Why not, where there are such ranks.
    """

    coupled: bool
    why_not: str = ""


def data_parallel_coupling(vllm_config: Any) -> Coupling:  # noqa: ANN401 - vLLM's own
    """Say whether data-parallel ranks launch together, from a worker's ``VllmConfig``.

    vLLM spreads experts over the data-parallel ranks, with expert parallelism or without: its EP
    group holds all of them wherever the model has experts (``initialize_model_parallel``). Ranks of
    a dense model are engines of their own; vLLM then tells each worker that there is one.
    """
    parallel, model = vllm_config.parallel_config, vllm_config.model_config
    if parallel.data_parallel_size <= 1:
        return Coupling(False)
    if model is None or not model.is_moe:
        return Coupling(False, "data-parallel ranks of a dense model run on their own")
    if getattr(parallel, "enable_elastic_ep", False):
        return Coupling(False, "elastic expert parallelism changes its ranks while it serves")
    if getattr(parallel, "enable_fault_tolerance", False):
        return Coupling(False, "fault tolerance goes on without ranks that are lost")
    return Coupling(True)


def data_parallel_agreement(mode: Mode) -> Agreement | None:
    """Return the agreement of the data-parallel ranks; in observe if it can be had.

    The EP group is this group times the TP group, whose ranks are compared by all that they run. So
    ranks of the EP group that differ are found in one of the two.

    Raises:
        ConfigurationError: When enforcing, if torch does not tell the store of the group.
    """
    from vllm.distributed import parallel_state

    group = parallel_state.get_dp_group()
    return _agreement(group, mode) if group.world_size > 1 else None


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
