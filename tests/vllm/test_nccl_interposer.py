"""vLLM's wrapper of NCCL, by its own code, in front of a stub of NCCL, which needs no GPU."""

from __future__ import annotations

import json
import os
import subprocess
import sys

import pytest

from tests.native.cmake_target import REPOSITORY, NativeBuildError
from tests.native.nccl_stubs import Stubs, build_stubs

RUN_TIMEOUT = 200


@pytest.fixture(scope="module")
def stubs() -> Stubs:
    try:
        return build_stubs()
    except NativeBuildError as error:
        pytest.skip(f"the interposer cannot be built here: {error}")


@pytest.mark.parametrize("variable", ["LD_PRELOAD", "VLLM_NCCL_SO_PATH"])
def test_an_all_reduce_of_pynccl_is_in_the_signature(stubs: Stubs, variable: str) -> None:
    done = subprocess.run(
        [sys.executable, "-m", "tests.vllm.pynccl_program", str(stubs.interposer)],
        env={
            **os.environ,
            "PYTHONPATH": str(REPOSITORY),
            "GRAPHGUARD_NCCL_SO": str(stubs.nccl),
            # What pynccl opens by default where there is CUDA, which this build of vLLM is not for.
            "VLLM_NCCL_SO_PATH": "libnccl.so.2",
            variable: str(stubs.interposer),
        },
        cwd=REPOSITORY,
        capture_output=True,
        text=True,
        timeout=RUN_TIMEOUT,
        check=False,
    )
    assert done.returncode == 0, done.stdout + done.stderr
    calls = json.loads(done.stdout.splitlines()[-1])
    assert calls == [["all_reduce", 16, "bfloat16", "max", 2, "interposer"]]
