"""The interposer with many threads, under the address and the thread sanitizer."""

from __future__ import annotations

import os
import subprocess

import pytest

from tests.native.cmake_target import NativeBuildError, build
from tests.native.nccl_stubs import Stubs, build_stubs

RUN_TIMEOUT = 120
OPTION, FOLDER = "GRAPHGUARD_NCCL_STUBS", "nccl-stubs"


@pytest.fixture(scope="module")
def stubs() -> Stubs:
    try:
        return build_stubs()
    except NativeBuildError as error:
        pytest.fail(f"the interposer cannot be built: {error}", pytrace=False)


@pytest.mark.parametrize("sanitizer", ["address", "thread"])
def test_threads_that_record_themselves_find_what_they_called(stubs: Stubs, sanitizer: str) -> None:
    try:
        stress = build(f"graphguard_interposer_{sanitizer}_stress", OPTION, FOLDER)
    except NativeBuildError as error:
        pytest.fail(f"the stress binary cannot be built: {error}", pytrace=False)
    environment = {name: value for name, value in os.environ.items() if name != "LD_PRELOAD"}
    done = subprocess.run(
        [str(stress), "4", "200"],
        env={**environment, "GRAPHGUARD_NCCL_SO": str(stubs.nccl)},
        capture_output=True,
        text=True,
        timeout=RUN_TIMEOUT,
        check=False,
    )
    assert done.returncode == 0, done.stdout + done.stderr
    name, _, calls = done.stdout.strip().partition("=")
    assert name == "ok calls"
    assert int(calls) > 5_000
