"""The stand-in for the CUDA driver, built once."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.native.cmake_target import NativeBuildError, build
from tests.native.fake_driver import FakeDriver


@pytest.fixture(scope="session")
def fake_driver_library() -> Path:
    try:
        return build("graphguard_fake_driver", "GRAPHGUARD_STRESS", "stress")
    except NativeBuildError as error:
        pytest.fail(f"the stand-in for the driver cannot be built: {error}", pytrace=False)


@pytest.fixture
def fake(fake_driver_library: Path) -> Iterator[FakeDriver]:
    fake = FakeDriver(fake_driver_library)
    fake.reset()
    yield fake
    # Whatever was asked, this thread goes on in the mode that it was in.
    assert fake.capture_mode() == 0
    fake.reset()
