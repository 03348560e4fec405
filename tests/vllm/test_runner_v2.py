"""The V2 runner, its managers and speculators of each version, on CPU torch.

vLLM does not start this runner without Triton and a GPU. So its classes run from the scheduler's
output to the replay of an emulated graph, and none of this was seen in a running engine.
"""

from __future__ import annotations

import pytest

from tests.vllm.v2.versions import VERSIONS, armed, check


@pytest.mark.parametrize("version", VERSIONS)
def test_steps_are_recorded_checked_and_agreed_on(version: str) -> None:
    assert "passed" in check(version, "runner", "captures", "ranks", "drafter")


@pytest.mark.parametrize("version", VERSIONS)
def test_padded_slots_are_looked_at(version: str) -> None:
    assert "passed" in check(version, "padding")


@pytest.mark.parametrize("version", VERSIONS)
def test_graphs_are_captured_again(version: str) -> None:
    assert "passed" in check(version, "recapture")


@pytest.mark.parametrize("version", VERSIONS)
def test_graphs_of_one_size_are_told_apart(version: str) -> None:
    assert "passed" in check(version, "variants")


@pytest.mark.parametrize("version", VERSIONS)
def test_the_plugin_arms_every_part_of_the_runner(version: str) -> None:
    found = armed(version)

    expected = {"v2-target", "v2-padding", "v2-drafter"} | (
        {"breakable"} if version != "0.20.1" else set()
    )
    assert expected <= found["parts"].keys()
    assert [found["parts"][part]["reasons"] for part in expected] == [[]] * len(expected)
    assert not found["initialized"]
