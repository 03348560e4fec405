"""What the ranks of the tests of stalls on several nodes run. Each returns what JSON can hold.

All ranks are on this machine, so that they are several nodes is what is made up here: the name of
their shared memory, and a directory for each node.
"""

from __future__ import annotations

import json
import os
import time
from pathlib import Path
from typing import Any

import torch.distributed as dist
from torch._C._distributed_c10d import PrefixStore, TCPStore

from graphguard.agreement import members
from graphguard.agreement.store import store_of
from tests.distributed.agreed_programs import Step, run

SECONDS = 30.0
BUNDLE = "stall-20261121T191410Z-host-0123abcd"


def nodes_that_stall() -> dict[str, Any]:
    """Serve two steps, and let the second node find that its rank is stuck."""
    node = _as_node()
    step = Step().guarded(mode="observe")
    run(step, "16x2", "16x2")
    dist.barrier()
    path = Path(os.environ["GRAPHGUARD_DIR"], BUNDLE)
    _found(path, node)
    found = _until(path / "nodes.json")
    dist.barrier()
    return found


def a_node_that_ends() -> dict[str, Any]:
    """Serve two steps; the second node ends without a word, and the first one finds a stall."""
    node = _as_node()
    step = Step().guarded(mode="observe")
    run(step, "16x2", "16x2")
    dist.barrier()
    if node == 1:
        os._exit(0)
    path = Path(os.environ["GRAPHGUARD_DIR"], BUNDLE)
    _found(path, node)
    Path(os.environ["TOLD"]).write_text(json.dumps(_until(path / "nodes.json")))
    os._exit(0)


def _as_node() -> int:
    """Make this rank one of a node that has a directory of its own, and meet over a server."""
    rank, ranks = dist.get_rank(), dist.get_world_size()
    node = rank
    folder = Path(os.environ["FOLDER"], f"node{node}")
    folder.mkdir(0o700, exist_ok=True)
    os.environ["GRAPHGUARD_DIR"] = str(folder)
    members._memory = lambda: f"node {node}"
    server = _server(rank, ranks)
    dist.destroy_process_group()
    store = PrefixStore("nodes", server)
    dist.init_process_group("gloo", store=store, rank=rank, world_size=ranks)
    return node


def _server(rank: int, ranks: int) -> TCPStore:
    first = store_of(dist.group.WORLD)
    if rank == 0:
        server = TCPStore("127.0.0.1", 0, ranks, is_master=True, wait_for_workers=False)
        first.set("port", b"%d" % server.port)
        return server
    port = int(first.get("port"))
    return TCPStore("127.0.0.1", port, ranks, is_master=False, wait_for_workers=False)


def _found(path: Path, node: int) -> None:
    """Leave a bundle, as the examiner of a node does."""
    stuck = {"stall_class": "host-stuck", "ranks": [1], "sentence": "rank 1: spin()"}
    waits = {"stall_class": "device", "waiting": [0], "sentence": "it waits"}
    path.mkdir(0o700)
    made = path / "verdict.json.made"
    made.write_text(json.dumps(stuck if node == 1 else waits))
    made.rename(path / "verdict.json")


def _until(path: Path) -> dict[str, Any]:
    deadline = time.monotonic() + SECONDS
    while not path.exists():
        if time.monotonic() > deadline:
            return {"missing": str(path)}
        time.sleep(0.05)
    found: dict[str, Any] = json.loads(path.read_text())
    return found
