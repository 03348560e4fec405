"""Breakable graphs of each version that has them, on CPU torch.

They run in the classes of the V2 runner, and none of this was seen in a running engine.
"""

from __future__ import annotations

import pytest

from tests.vllm.v2.versions import VERSIONS, check

WITHOUT = "0.20.1"


@pytest.mark.parametrize("version", [v for v in VERSIONS if v != WITHOUT])
def test_breakable_graphs_are_recorded_replayed_and_forgotten(version: str) -> None:
    assert "passed" in check(version, "breakable")
