"""What all ranks of a process group call it."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from itertools import groupby
from typing import Any, NamedTuple
from weakref import WeakKeyDictionary

import torch.distributed as dist
from torch._C._distributed_c10d import ProcessGroup, _resolve_process_group


class Group(NamedTuple):
    """A communicator: its name with its global ranks, its size, and this process's rank in it."""

    name: str
    size: int
    rank: int


# Dropped with the group itself: a later group of the same name may have other ranks.
_described: WeakKeyDictionary[ProcessGroup, Group] = WeakKeyDictionary()


def describe_group(group: Any) -> Group:  # noqa: ANN401 - torch passes a name, a script object or a group
    """Describe a process group as an operator's argument gives it.

    The name is torch's own, which all ranks of the group share, followed by the global ranks:
    ``0[0-3]``. Two groups of the same ranks have different names, as they are different
    communicators. The ranks of a group that torch.distributed does not know are left empty.
    """
    if isinstance(group, str):
        group = _resolve_process_group(group)  # type: ignore[arg-type]  # a newer alias of str
    elif not isinstance(group, ProcessGroup):
        group = ProcessGroup.unbox(group)
    if group not in _described:
        name = f"{group.group_name}[{_ranks(group)}]"
        _described[group] = Group(name, group.size(), group.rank())
    return _described[group]


def _ranks(group: ProcessGroup) -> str:
    try:
        return format_ranks(dist.get_process_group_ranks(group))
    except (KeyError, RuntimeError, ValueError):
        return ""


def format_ranks(ranks: Iterable[int]) -> str:
    """Write ranks in the order of their group, with runs for consecutive ones: ``0-3,6``."""

    def runs() -> Iterator[str]:
        numbered = enumerate(ranks)
        for _, members in groupby(numbered, key=lambda pair: pair[1] - pair[0]):
            run = [rank for _, rank in members]
            yield str(run[0]) if len(run) == 1 else f"{run[0]}-{run[-1]}"

    return ",".join(runs())
