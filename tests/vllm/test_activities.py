"""What a worker is doing, in its pulse: with the workers and outputs of each version of vLLM."""

from __future__ import annotations

import pytest

from tests.vllm.v2.versions import VERSIONS, check


@pytest.mark.parametrize("version", VERSIONS)
def test_a_worker_tells_its_pulse_what_it_does(version: str) -> None:
    assert "passed" in check(version, "activities")
