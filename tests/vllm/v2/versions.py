"""Running the checks of this folder with another vLLM on the path, in a process of its own."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from typing import Any

from tests.vllm import wheels

INSTALLED = "installed"
VERSIONS = (*wheels.CUDA_VERSIONS, INSTALLED)
TIMEOUT_SECONDS = 420.0


def check(version: str, *names: str) -> str:
    """Run checks of this folder with a version of vLLM; return the last line that pytest writes.

    Raises:
        AssertionError: If one of them fails, with what pytest has written.
    """
    files = [str(wheels.REPOSITORY / "tests" / "vllm" / "v2" / f"check_{n}.py") for n in names]
    options = ["-q", "--tb=short", "--show-capture=no", "-p", "no:cacheprovider", "-W", "default"]
    output = _run(version, "pytest", *options, *files)
    return output.rstrip().rpartition("\n")[2]


def armed(version: str) -> Any:
    """Return what the plugin arms where a process imports a version's V2 runner."""
    return json.loads(_run(version, "tests.vllm.v2.arming").rstrip().rpartition("\n")[2])


def _run(version: str, module: str, *arguments: str) -> str:
    environment = {k: v for k, v in os.environ.items() if not k.startswith("GRAPHGUARD_")}
    if version != INSTALLED:
        environment["PYTHONPATH"] = str(wheels.python_files(version))
    try:
        done = subprocess.run(
            [sys.executable, "-m", module, *arguments],
            cwd=wheels.REPOSITORY,
            env=environment,
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
            timeout=TIMEOUT_SECONDS,
            check=False,
        )
    except subprocess.TimeoutExpired as error:
        raise AssertionError(
            f"vllm {version}: no end after {error.timeout} s\n{error.stdout!r}"
        ) from None
    if done.returncode != 0:
        raise AssertionError(f"vllm {version}:\n{done.stdout[-8000:]}{done.stderr[-2000:]}")
    return done.stdout
