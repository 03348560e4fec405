"""The store of a process group: found, prefixed, and with a connection of its own."""

from typing import Any, cast

import pytest
import torch.distributed as dist
from torch._C._distributed_c10d import FileStore, HashStore, PrefixStore, ProcessGroup, TCPStore
from torch._C._distributed_c10d import Store as TorchStore

from graphguard.agreement import store as stores
from graphguard.agreement.store import Store, members_of, store_of
from graphguard.errors import ConfigurationError

pytestmark = pytest.mark.usefixtures("one_rank")


def world() -> ProcessGroup:
    group = dist.group.WORLD
    assert group is not None
    return group


def test_the_members_of_a_group_are_told_as_recorders_tell_them() -> None:
    members = members_of(world())

    assert (members.rank, members.ranks) == (0, (0,))
    assert members.name == f"{world().group_name}[0]"


@pytest.mark.parametrize(
    ("group", "told"),
    [
        (None, "is not a member"),
        (dist.GroupMember.NON_GROUP_MEMBER, "is not a member"),
        ("0", "a str is not a process group"),
    ],
)
@pytest.mark.parametrize("function", [members_of, store_of])
def test_what_is_no_group_of_this_process_is_refused(
    function: Any, group: object, told: str
) -> None:
    with pytest.raises(ConfigurationError, match=told):
        function(group)


def test_a_group_that_was_destroyed_is_refused() -> None:
    group = dist.new_group([0])
    dist.destroy_process_group(group)

    with pytest.raises(ConfigurationError, match="does not know which ranks"):
        members_of(group)


def test_keys_are_apart_from_those_of_the_program_and_of_other_groups() -> None:
    first, second = store_of(world()), store_of(dist.new_group([0]))

    first.set("key", b"\x00\xff")

    assert first.get("key") == b"\x00\xff"
    assert not second.check(["key"])
    underlying = world().get_group_store()
    assert not underlying.check(["key"])
    assert underlying.check([f"graphguard/{members_of(world()).name}/key"])


def test_older_versions_of_torch_keep_the_store_in_a_table(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    group = world()

    class Older:
        """A group without ``get_group_store``."""

    older = Older()
    monkeypatch.setitem(
        cast(Any, dist.distributed_c10d)._world.pg_map, older, ("gloo", group.get_group_store())
    )

    assert stores._group_store(older, "0[0]") == group.get_group_store()


def test_a_version_of_torch_that_hides_the_store_is_told_what_was_not_found() -> None:
    with pytest.raises(ConfigurationError, match=r"ProcessGroup\.get_group_store.*pg_map"):
        stores._group_store(object(), "0[0]")


def test_a_connection_of_its_own_is_made_to_a_server() -> None:
    server = TCPStore("127.0.0.1", 0, 1, is_master=True, wait_for_workers=False)

    own = stores._own_connection(PrefixStore("group", server), "0[0]")

    assert str(own._underlying_non_prefix_store) != str(server)
    own.set("key", "value")
    assert PrefixStore("group", server).get("key") == b"value"


def test_a_store_that_cannot_be_cloned_is_used_as_it_is() -> None:
    class NoClone:
        def clone(self) -> None:
            raise RuntimeError("clone is not supported")

    for store in (NoClone(), object()):
        assert stores._own_connection(store, "0[0]") is store


@pytest.fixture(params=["memory", "file", "server"])
def kind(request: pytest.FixtureRequest, tmp_path: Any) -> TorchStore:
    if request.param == "memory":
        return HashStore()
    if request.param == "file":
        return FileStore(str(tmp_path / "store"), 1)
    return TCPStore("127.0.0.1", 0, 1, is_master=True, wait_for_workers=False)


def test_every_kind_of_store_does_what_is_asked_of_it(kind: TorchStore) -> None:
    store = cast(Store, PrefixStore("graphguard", kind))

    assert not store.check(["key"])
    assert store.compare_set("key", "", "first") == b"first"
    assert store.compare_set("key", "", "second") == b"first"
    store.set("key", b"")
    assert store.check(["key"])
    assert store.get("key") == b""
    store.set("key", bytes(range(256)) * 1_000)
    assert store.get("key") == bytes(range(256)) * 1_000
    assert not store.check(["key", "other"])
