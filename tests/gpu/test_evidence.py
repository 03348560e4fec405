"""The parts of the evidence of a stall that only a machine with a GPU has."""

from __future__ import annotations

import os
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
import torch

from graphguard.watch.evidence import core_dump, gpus, nccl_ras
from graphguard.watch.stack_traces import stacks

SPINS = """
import sys, torch
torch.ones(2**20, device="cuda")
torch.cuda.synchronize()
def waits_for_the_device():
    print("up", flush=True)
    torch.cuda._sleep(2**62)
    torch.cuda.synchronize()
waits_for_the_device()
"""

COMMUNICATES = """
import os, time, torch
import torch.distributed as dist
dist.init_process_group("nccl", init_method=f"file://{os.environ['MEET']}", rank=0, world_size=1)
dist.all_reduce(torch.ones(4, device="cuda"))
torch.cuda.synchronize()
print("up", flush=True)
time.sleep(600)
"""


@contextmanager
def running(program: str, **environment: str) -> Iterator[int]:
    process = subprocess.Popen(
        [sys.executable, "-c", program],
        stdout=subprocess.PIPE,
        env={**os.environ, **environment},
    )
    try:
        assert process.stdout is not None
        assert process.stdout.readline() == b"up\n"
        yield process.pid
    finally:
        process.kill()
        process.wait(60)
        if process.stdout is not None:
            process.stdout.close()


def test_nvml_tells_of_the_device_that_a_process_spins_on() -> None:
    pytest.importorskip("pynvml")
    assert gpus.driver_there()
    with running(SPINS):
        time.sleep(2)
        told = gpus.ask(30.0)
    assert told["driver"]
    gpu = told["gpus"][torch.cuda.current_device()]
    assert gpu["name"]
    assert gpu["memory"]["used"] > 0
    assert gpu["utilisation"]["gpu"] > 0
    assert gpu["temperature_c"] > 0


def test_a_process_that_waits_for_its_device_has_stacks_of_both_kinds() -> None:
    with running(SPINS) as pid:
        python = stacks.sample([pid], 20.0)[pid]
        native = stacks.sample_native([pid], 20.0)[pid]
    assert python.main is not None, python.problem
    assert "waits_for_the_device" in [frame.function for frame in python.main.frames]
    assert native.main is not None, native.problem
    assert any(frame.native for frame in native.main.frames)


def test_the_ras_of_a_real_communicator_answers(tmp_path: Path) -> None:
    address = "127.0.0.1:28129"
    with running(COMMUNICATES, MEET=str(tmp_path / "meet"), NCCL_RAS_ADDR=address):
        told = nccl_ras.ask(address, 10.0)
    assert told["protocol"]
    assert told["answer"]
    if told["format"] == "json":
        assert "communicators" in str(told["answer"])


def test_a_process_dumps_its_device_when_it_is_asked(tmp_path: Path) -> None:
    environment = {
        "CUDA_ENABLE_USER_TRIGGERED_COREDUMP": "1",
        "CUDA_COREDUMP_PIPE": str(tmp_path / "pipe.%p"),
        "CUDA_COREDUMP_FILE": str(tmp_path / "core.%p"),
        "CUDA_COREDUMP_GENERATION_FLAGS": (
            "skip_nonrelocated_elf_images,skip_global_memory,skip_shared_memory,"
            "skip_local_memory,skip_constbank_memory"
        ),
    }
    with running(SPINS, **environment) as pid:
        core_dump.trigger(pid, environment)
        end = time.monotonic() + 120
        while not list(tmp_path.glob("core.*")):
            assert time.monotonic() < end, "no core dump was written"
            time.sleep(0.1)
