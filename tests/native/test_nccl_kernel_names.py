"""The table of communication kernels against the kernels in the real wheels of NCCL.

Without the wheels the tests are skipped, see test_nccl_wheels.
"""

from __future__ import annotations

import mmap
import os
import re
from fnmatch import fnmatchcase
from pathlib import Path

import pytest

from graphguard.communication import communication, families
from graphguard.nodes import GraphNode
from tests.native import nccl_wheels

# The mangled name of a function: the length of its name, and the name.
_MANGLED = re.compile(rb"_Z(\d+)(nccl(?:Symk?)?DevKernel\w+)")
_WORDS = {
    "AllReduce": "all_reduce",
    "AllGather": "all_gather",
    "AllGatherV": "all_gather_v",
    "ReduceScatter": "reduce_scatter",
    "Reduce": "reduce",
    "Broadcast": "broadcast",
    "SendRecv": "send",
    "Generic": "*",
}


def required(version: str) -> Path:
    library = nccl_wheels.library(version)
    if library is None:
        reason = f"the wheel of NCCL {version} was not fetched: python -m tests.native.nccl_wheels"
        if os.environ.get("GRAPHGUARD_REQUIRE_NCCL_WHEELS") == "1":
            pytest.fail(reason, pytrace=False)
        pytest.skip(reason)
    return library


def kernels(library: Path) -> set[str]:
    """Return the names of the kernels in a library."""
    with library.open("rb") as file, mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ) as data:
        found = _MANGLED.findall(data)
    return {rest[: int(length)].decode() for length, rest in found}


@pytest.mark.parametrize("version", nccl_wheels.VERSIONS)
def test_every_kernel_of_nccl_is_in_the_table(version: str) -> None:
    names = kernels(required(version))
    assert len(names) > 50
    for name in names:
        # A kernel that only resets what a communicator keeps; it has no collective in its name.
        kind = re.match(r"nccl(?:Symk?)?DevKernel_([A-Za-z]+)", name)
        if kind is None:
            continue
        match = communication(GraphNode("kernel", f"{name}(ncclDevKernelArgsStorage<4096ul>)"))
        assert match is not None, name
        assert match.family.family == "NCCL"
        assert _WORDS[kind[1]] in match.kernels.calls, name


def test_every_name_of_the_table_is_in_a_wheel() -> None:
    names: set[str] = set()
    for version in nccl_wheels.VERSIONS:
        names |= kernels(required(version))
    (nccl,) = (family for family in families() if family.family == "NCCL")
    # The last ones are for kernels that are not known yet.
    for named in nccl.kernels[:-1]:
        for pattern in named.names:
            assert any(fnmatchcase(name, pattern) for name in names), pattern
