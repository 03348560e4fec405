"""Ranks that capture and compare their captures. Each function returns what JSON can hold."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from functools import partial
from typing import Any, cast

import torch
import torch.distributed as dist
from torch._C._distributed_c10d import PrefixStore, TCPStore
from torch._C._distributed_c10d import Store as TorchStore

from graphguard import BatchDescriptor, Session, Signature, record
from graphguard.agreement.nodes import NodeComparison, Window
from graphguard.agreement.rendezvous import Rendezvous
from graphguard.agreement.seal import seal
from graphguard.agreement.store import Store, members_of, store_of
from graphguard.environment import Mode
from graphguard.errors import AgreementError, RankMissing
from graphguard.graphs.emulated import EmulatedGraph, capture
from graphguard.signature import GraphKey

SECONDS = 60.0
KEY = GraphKey("target")
Body = Callable[[], None]


def captured(body: Body, batch: str = "16x2", role: str = "target") -> Signature:
    """Capture what a function calls, without running it, and return what was recorded."""
    graph = EmulatedGraph()
    recording = record(role, BatchDescriptor.parse(batch), session=Session())
    with recording:
        with capture(graph):
            body()
        recording.captured(graph)
    return recording.signature


def compared(
    rendezvous: Rendezvous,
    signatures: Sequence[Signature],
    key: GraphKey = KEY,
    mode: Mode = Mode.ENFORCE,
    failure: str = "",
) -> list[Any]:
    """Seal and return what was found: differences, blamed ranks, failures."""
    outcome = seal(rendezvous, key, signatures, mode=mode, failure=failure, seconds=SECONDS)
    return [
        list(map(str, outcome.differences)),
        [list(difference.blamed) for difference in outcome.differences],
        {str(rank): text for rank, text in outcome.failures.items()},
    ]


def faults() -> dict[str, list[Any]]:
    """Seal captures in which rank 1 does one thing differently, one fault after the other."""
    odd = dist.get_rank() == 1
    same_ranks = dist.new_group(list(range(dist.get_world_size())))
    x, halves = torch.zeros(8), torch.zeros(8, dtype=torch.float16)
    rendezvous = Rendezvous.of_group(dist.group.WORLD)

    def step(x: torch.Tensor = x, root: int = 0, extra: bool = False, group: Any = None) -> Body:
        def body() -> None:
            dist.all_reduce(x, group=group)
            if extra:
                dist.all_reduce(x)
            dist.broadcast(x, src=root)

        return body

    def swapped() -> None:
        dist.broadcast(x, src=0)
        dist.all_reduce(x)

    def one_graph(fault: Body) -> list[Any]:
        return compared(rendezvous, [captured(fault if odd else step())])

    large, small = captured(step()), captured(step(), "8x2")
    drafter = captured(step(), role="drafter")
    return {
        "equal": compared(rendezvous, [large, small]),
        "one more": one_graph(step(extra=True)),
        "order": one_graph(swapped),
        "dtype": one_graph(step(halves)),
        "count": one_graph(step(x[:4])),
        "root": one_graph(step(root=1)),
        "group": one_graph(step(group=same_ranks)),
        "captured by one": compared(rendezvous, [large, small] if odd else [large]),
        "not captured by one": compared(rendezvous, [large] if odd else [large, small]),
        "order of captures": compared(rendezvous, [small, large] if odd else [large, small]),
        "mode": compared(rendezvous, [large], mode=Mode.OBSERVE if odd else Mode.ENFORCE),
        "family": compared(
            rendezvous,
            [drafter if odd else large],
            key=GraphKey("drafter") if odd else KEY,
        ),
        "failure": compared(
            rendezvous,
            [large] if odd else [large, small],
            failure="out of memory" if odd else "",
        ),
        "equal again": compared(rendezvous, [large, small]),
    }


def a_rank_never_arrives() -> list[Any]:
    """Seal on all ranks but 1, which is done after its first family of graphs."""
    rendezvous = Rendezvous.of_group(dist.group.WORLD)
    signature = captured(lambda: None)
    seal(rendezvous, KEY, [signature], mode=Mode.ENFORCE, seconds=SECONDS)
    found: list[Any] = []
    if dist.get_rank() != 1:
        try:
            seal(rendezvous, GraphKey("drafter"), [], mode=Mode.ENFORCE, seconds=0.5)
        except RankMissing as error:
            found = [list(error.missing), str(error)]
    _last_words()
    return found


def a_rank_joins_nothing() -> list[int]:
    """Seal on all ranks but 1, which never does."""
    found: list[int] = []
    if dist.get_rank() != 1:
        try:
            seal(Rendezvous.of_group(dist.group.WORLD), KEY, [], mode=Mode.ENFORCE, seconds=0.5)
        except RankMissing as error:
            found = list(error.missing)
    _last_words()
    return found


def two_groups() -> dict[str, Any]:
    """Seal in a tensor-parallel pair and in a data-parallel one, of four ranks."""
    rank = dist.get_rank()
    tensor = [dist.new_group([0, 1]), dist.new_group([2, 3])]
    data = [dist.new_group([0, 2]), dist.new_group([1, 3])]
    own_tensor, own_data = tensor[rank // 2], data[rank % 2]
    x = torch.zeros(12 if rank == 3 else 8)

    def body() -> None:
        dist.all_reduce(torch.zeros(4), group=own_tensor)
        dist.all_reduce(x, group=own_data)

    signature = captured(body)
    other = tensor[1 - rank // 2]
    refused = ""
    try:
        members_of(other)
    except Exception as error:  # noqa: BLE001 - its class is looked at
        refused = type(error).__name__
    return {
        "tensor": compared(Rendezvous.of_group(own_tensor), [signature]),
        "data": compared(Rendezvous.of_group(own_data), [signature]),
        "members": [members_of(own_data).rank, members_of(own_data).name],
        "refused": refused,
    }


def over_tcp() -> dict[str, Any]:
    """Seal over a server, in two lives of the process group with the same name."""
    rank, ranks = dist.get_rank(), dist.get_world_size()
    server = _tcp_store(rank, ranks)
    dist.destroy_process_group()
    found = []
    for life in range(2):
        # A prefix for torch itself, whose own keys are not made for a second life.
        dist.init_process_group(
            "gloo",
            store=PrefixStore(f"life {life}", server),
            rank=rank,
            world_size=ranks,
        )
        # Without one: every life of the group finds the keys of the one before.
        rendezvous = Rendezvous(cast(Store, server), rank, ranks, "0[0-3]")
        x = torch.zeros(4 + life)
        found.append(compared(rendezvous, [captured(partial(_reduce, x))]))
        clone = _underlying(store_of(dist.group.WORLD))
        dist.barrier()
        if life == 0:
            dist.destroy_process_group()
    return {"found": found, "own connection": str(clone) != str(server)}


def _reduce(x: torch.Tensor) -> None:
    dist.all_reduce(x)


def _underlying(store: Store) -> TorchStore:
    return cast(TorchStore, cast(Any, store)._underlying_non_prefix_store)


def _tcp_store(rank: int, ranks: int) -> TCPStore:
    """Start a server on rank 0, tell its port over the first store, and connect to it."""
    first = store_of(dist.group.WORLD)
    if rank == 0:
        server = TCPStore("127.0.0.1", 0, ranks, is_master=True, wait_for_workers=False)
        first.set("port", b"%d" % server.port)
        return server
    port = int(first.get("port"))
    return TCPStore("127.0.0.1", port, ranks, is_master=False, wait_for_workers=False)


def the_server_is_gone() -> str:
    """Seal over the server of a rank that has ended it."""
    rank, ranks = dist.get_rank(), dist.get_world_size()
    server = _tcp_store(rank, ranks)
    rendezvous = Rendezvous(cast(Store, server), rank, ranks, "0[0-1]")
    found = ""
    dist.barrier()
    if rank == 0:
        # The last references: the server ends with them.
        del server, rendezvous
    dist.barrier()
    if rank != 0:
        try:
            seal(rendezvous, KEY, [], mode=Mode.ENFORCE, seconds=SECONDS)
        except AgreementError as error:
            found = str(error)
    _last_words()
    return found


def nodes_that_part() -> list[str]:
    """Compare two nodes of one rank each, which part in step 300 and then hang."""
    rank = dist.get_rank()
    digests = [f"{1 + (step == 300 and rank == 1):016x}" for step in range(1, 301)]
    rolling = [f"{sum(int(d, 16) for d in digests[: i + 1]):016x}" for i in range(300)]
    steps = [(i + 1, digests[i], rolling[i]) for i in range(300)]
    now = 0

    def window() -> Window | None:
        return Window("0[0-1]", now, rolling[now - 1], steps[max(0, now - 64) : now])

    nodes = NodeComparison(store_of(dist.group.WORLD), rank, ["host-a", "host-b"], window)
    found: list[str] = []
    deadline = time.monotonic() + SECONDS
    while not found and time.monotonic() < deadline:
        now = min(300, now + 7 + 3 * rank)
        found = list(map(str, nodes.poll()))
        time.sleep(0.01)
    _last_words()
    return found


def _last_words() -> None:
    """Keep a rank until all have said what they found: its store may be in its process."""
    dist.barrier()
