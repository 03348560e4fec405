"""The spine on the graphs that any machine has: torch's own class, the hooks, emulated graphs."""

from __future__ import annotations

import pytest

from graphguard.graphs.emulated import EmulatedGraph
from graphguard.recorders.spine_hooks import HookAdapter
from graphguard.recorders.spine_patches import PatchAdapter
from tests.unit.recorders import hooked_graphs
from tests.unit.recorders.graph_libraries import Library, of_installed_torch
from tests.unit.recorders.spine_behaviour import *  # noqa: F403
from tests.unit.recorders.spine_fixtures import box, install
from tests.unit.recorders.spine_launches import *  # noqa: F403

__all__ = ["box", "install"]


class Emulated(Library):
    has_pools = can_be_invalidated = has_modes = False


LIBRARIES = (
    of_installed_torch(),
    Library("stand-in for 2.14", hooked_graphs.CUDAGraph, lambda: HookAdapter(hooked_graphs)),
    Emulated("emulated", EmulatedGraph, lambda: PatchAdapter(EmulatedGraph)),
)


@pytest.fixture(params=LIBRARIES, ids=repr)
def library(request: pytest.FixtureRequest) -> Library:
    library: Library = request.param
    return library
