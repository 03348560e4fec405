"""The watchdog under ThreadSanitizer."""

from __future__ import annotations

import re
import subprocess
from pathlib import Path

import pytest

from tests.native.cmake_target import NativeBuildError, build

RUN_TIMEOUT = 120


@pytest.fixture(scope="module")
def stress() -> Path:
    try:
        return build("graphguard_watchdog_stress", "GRAPHGUARD_TSAN", "thread-stress")
    except NativeBuildError as error:
        pytest.fail(f"the stress of the watchdog cannot be built: {error}", pytrace=False)


def test_it_looks_while_threads_work_and_examines_only_what_stays(stress: Path) -> None:
    done = subprocess.run(
        [str(stress), "3", "20000", "3"],
        capture_output=True,
        text=True,
        timeout=RUN_TIMEOUT,
        check=False,
    )

    assert done.returncode == 0, done.stdout + done.stderr
    counts = {name: int(value) for name, value in re.findall(r"(\w+)=(\d+)", done.stdout)}
    assert counts["activities"] == 3 * 3 * 20_000
    assert counts["examined"] == 3
    assert counts["readings"] > 0
    assert counts["seen"] > 0
