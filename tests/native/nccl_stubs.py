"""Builds the interposer, and the NCCL, the driver and the programs that it is tried with."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from tests.native.cmake_target import REPOSITORY, build

RUN_TIMEOUT = 60


@dataclass(frozen=True)
class Stubs:
    """Where the parts lie.

    Attributes:
        interposer: The library that is shipped.
        nccl: A libnccl.so.2 that communicates nothing.
        driver: A libcuda.so.1 in which streams with a number of 100 or more are being captured.
        consumer: A library that is linked with NCCL, as torch is.
        newer_consumer: One that is linked with a function that the interposer does not know.
    """

    interposer: Path
    nccl: Path
    driver: Path
    consumer: Path
    newer_consumer: Path

    def run(
        self, program: str, *arguments: object, module: object = "nccl_program", **settings: object
    ) -> Any:
        """Run a function of a program in a process of its own; return what it returns.

        Args:
            program: The name of the function.
            arguments: What it is called with, as text.
            module: The module of ``tests.native`` that has it.
            settings: Environment variables; None takes one away.
        """
        environment: dict[str, object] = {
            **os.environ,
            "GRAPHGUARD_NCCL_SO": self.nccl,
            "LD_LIBRARY_PATH": self.nccl.parent,
            "PYTHONPATH": REPOSITORY,
            **settings,
        }
        command = [sys.executable, "-m", f"tests.native.{module}", program]
        done = subprocess.run(
            [*command, *map(str, arguments)],
            env={name: str(value) for name, value in environment.items() if value is not None},
            cwd=REPOSITORY,
            capture_output=True,
            text=True,
            timeout=RUN_TIMEOUT,
            check=False,
        )
        assert done.returncode == 0, done.stdout + done.stderr
        return json.loads(done.stdout.splitlines()[-1])


def build_stubs() -> Stubs:
    """Build all of them.

    Raises:
        NativeBuildError: If one cannot be built.
    """
    place = build("graphguard_nccl_stubs", "GRAPHGUARD_NCCL_STUBS", "nccl-stubs").parent
    return Stubs(
        interposer=place / "interposer" / "libnccl.so.2",
        nccl=place / "stub" / "libnccl.so.2",
        driver=place / "libgraphguard_capturing_driver.so",
        consumer=place / "libgraphguard_nccl_consumer.so",
        newer_consumer=place / "libgraphguard_newer_nccl_consumer.so",
    )
