"""The V2 runner, its managers and speculators of each version, on CPU torch.

vLLM does not start this runner without Triton and a GPU. So its classes run from the scheduler's
output to the replay of an emulated graph, and none of this was seen in a running engine.
"""

from __future__ import annotations

from collections.abc import Iterator
from concurrent.futures import Future, ThreadPoolExecutor

import pytest

from tests.vllm.v2.versions import VERSIONS, armed, check

pytestmark = pytest.mark.timeout(900)

AT_A_TIME = 2
"""The checks of a version are one process. It takes a minute, half of it to import vLLM."""

CHECKS = ("runner", "captures", "ranks", "drafter", "padding", "recapture", "variants")


@pytest.fixture(scope="module")
def checked() -> Iterator[dict[str, Future[str]]]:
    """The checks of each version, two versions at a time."""
    with ThreadPoolExecutor(AT_A_TIME) as pool:
        yield {version: pool.submit(check, version, *CHECKS) for version in VERSIONS}
        pool.shutdown(cancel_futures=True)


@pytest.mark.parametrize("version", VERSIONS)
def test_steps_padding_recaptures_and_variants_of_the_runner(
    version: str, checked: dict[str, Future[str]]
) -> None:
    assert "passed" in checked[version].result()


@pytest.mark.parametrize("version", VERSIONS)
def test_the_plugin_arms_every_part_of_the_runner(version: str) -> None:
    found = armed(version)

    expected = {"v2-target", "v2-padding", "v2-drafter"} | (
        {"breakable"} if version != "0.20.1" else set()
    )
    assert expected <= found["parts"].keys()
    assert [found["parts"][part]["reasons"] for part in expected] == [[]] * len(expected)
    assert not found["initialized"]
