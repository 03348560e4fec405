"""The store of a process group: where its ranks leave short messages for each other.

Every process group of torch.distributed has one: a server in one of the processes, or a file. It
works between nodes, and it does not touch the group's communicator, so that it can be used while
a graph is captured and while a collective hangs.
"""

from __future__ import annotations

from typing import Any, Protocol, cast

import msgspec

from graphguard.errors import ConfigurationError
from graphguard.log import logger


class Store(Protocol):
    """What is used of a torch.distributed store."""

    def set(self, key: str, value: bytes, /) -> None:
        """Write a value, over an older one."""

    def get(self, key: str, /) -> bytes:
        """Return a value; waits for one where there is none."""

    def check(self, keys: list[str], /) -> bool:
        """Whether all keys have values. Does not wait."""

    def compare_set(self, key: str, expected: str, desired: str, /) -> bytes:
        """Write a value if the key has the expected one, or none and that is empty.

        Returns:
            The value that the key has then.
        """


class GroupMembers(msgspec.Struct, frozen=True):
    """The ranks of a process group, and this process among them.

    Attributes:
        rank: This process's rank in the group.
        ranks: The global ranks, in the order of the group.
        name: What all ranks of the group call it: ``0[0-3]``.
    """

    rank: int
    ranks: tuple[int, ...]
    name: str


def members_of(group: object) -> GroupMembers:
    """Return the ranks of a process group of torch.distributed.

    Raises:
        ConfigurationError: If it is no group, torch.distributed does not know it, or this process
            is not a member.
    """
    import torch.distributed as dist

    from graphguard.recorders.c10d_groups import describe_group

    member = _process_group(group)
    described = describe_group(member)
    try:
        ranks = tuple(dist.get_process_group_ranks(member))
    except (KeyError, RuntimeError, ValueError) as error:
        raise ConfigurationError(
            f"torch.distributed does not know which ranks the group {described.name} has",
            hint="use a group that dist.new_group or dist.init_process_group made, before it is "
            "destroyed",
        ) from error
    return GroupMembers(described.rank, ranks, described.name)


def store_of(group: object) -> Store:
    """Return the store of a process group, with keys that no one else uses.

    Where the store is a server, this makes a connection of its own: the calls of one connection
    are answered one after the other, and those of the program must not wait for ours.

    Raises:
        ConfigurationError: If it is no group of this process, or torch does not tell its store.
    """
    from torch._C._distributed_c10d import PrefixStore

    name = members_of(group).name
    store = _own_connection(_group_store(group, name), name)
    return cast(Store, PrefixStore(f"graphguard/{name}", store))


def _process_group(group: object) -> Any:  # noqa: ANN401 - torch's class, which is not imported here
    import torch.distributed as dist
    from torch._C._distributed_c10d import ProcessGroup

    if group is None or group is dist.GroupMember.NON_GROUP_MEMBER:
        raise ConfigurationError(
            "this process is not a member of the group that it is to agree with",
            hint="give a group that has this rank, after dist.init_process_group",
        )
    if not isinstance(group, ProcessGroup):
        raise ConfigurationError(
            f"a {type(group).__name__} is not a process group",
            hint="give dist.group.WORLD or what dist.new_group returned",
        )
    if group.rank() < 0:
        raise ConfigurationError(
            f"this process is not a member of the group {group.group_name}",
            hint="give a group that has this rank",
        )
    return group


def _group_store(group: Any, name: str) -> Any:  # noqa: ANN401
    if callable(get_group_store := getattr(group, "get_group_store", None)):
        return get_group_store()
    from torch.distributed import distributed_c10d

    known = getattr(getattr(distributed_c10d, "_world", None), "pg_map", {})
    if group in known:
        return known[group][1]
    raise ConfigurationError(
        f"the store of the group {name} was not found: this torch has no "
        "ProcessGroup.get_group_store, and distributed_c10d._world.pg_map does not hold the group",
        hint="use a version of torch that graphguard was seen to work with",
    )


def _own_connection(store: Any, name: str) -> Any:  # noqa: ANN401
    try:
        return store.clone()
    except (AttributeError, NotImplementedError, RuntimeError) as error:
        # A file or a table in memory has no connection to wait for; a server that is gone is
        # told when the store is used.
        logger().debug("the store of %s is used as it is: %s", name, error)
        return store
