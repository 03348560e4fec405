"""The V2 runner, its managers and speculators of each version, on CPU torch.

vLLM does not start this runner without Triton and a GPU. So its classes run from the scheduler's
output to the replay of an emulated graph, and none of this was seen in a running engine.
"""

from __future__ import annotations

from collections.abc import Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from typing import cast

import pytest

from tests.vllm.v2.versions import VERSIONS, armed, check

AT_A_TIME = 2
"""Each check is a process of its own that takes about a minute, most of it to import vLLM."""

CHECKS = [
    pytest.param(
        ("runner", "captures", "ranks", "drafter"), id="steps are recorded, checked and agreed on"
    ),
    pytest.param(("padding",), id="padded slots are looked at"),
    pytest.param(("recapture",), id="graphs are captured again"),
    pytest.param(("variants",), id="graphs of one size are told apart"),
]

Case = tuple[str, tuple[str, ...]]


@pytest.fixture(scope="module")
def checks(request: pytest.FixtureRequest) -> Iterator[dict[Case, Future[str]]]:
    """The checks that the tests of this module ask for, in their order and two at a time."""
    asked = [
        cast("Case", (item.callspec.params["version"], item.callspec.params["names"]))
        for item in request.session.items
        if isinstance(item, pytest.Function)
        and item.module is request.module
        and "names" in item.callspec.params
    ]
    with ThreadPoolExecutor(AT_A_TIME) as pool:
        yield {(version, names): pool.submit(check, version, *names) for version, names in asked}
        pool.shutdown(cancel_futures=True)


@pytest.mark.parametrize("names", CHECKS)
@pytest.mark.parametrize("version", VERSIONS)
def test_the_runner_of_a_version(
    version: str, names: tuple[str, ...], checks: dict[Case, Future[str]]
) -> None:
    assert "passed" in checks[version, names].result()


@pytest.mark.parametrize("version", VERSIONS)
def test_the_plugin_arms_every_part_of_the_runner(version: str) -> None:
    found = armed(version)

    expected = {"v2-target", "v2-padding", "v2-drafter"} | (
        {"breakable"} if version != "0.20.1" else set()
    )
    assert expected <= found["parts"].keys()
    assert [found["parts"][part]["reasons"] for part in expected] == [[]] * len(expected)
    assert not found["initialized"]
