"""The hooks of the V2 runner, put in place for each test anew."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

import pytest

from tests.vllm.v2 import stand_ins

Arm = Callable[[str], Any]


@pytest.fixture(autouse=True)
def _emulated() -> Iterator[None]:
    with stand_ins.emulated_cuda():
        yield


@pytest.fixture
def arm(monkeypatch: pytest.MonkeyPatch) -> Iterator[Arm]:
    """Put all hooks in place in a mode, and return the guard of the worker."""
    from graphguard.session import Session
    from graphguard.vllm import capturing, collectives, groups, patches, worker_guard

    def armed(mode: str) -> Any:
        from graphguard.vllm import drafter_v2, runner_v2
        from graphguard.vllm.options import read_options

        monkeypatch.setenv("GRAPHGUARD_MODE", mode)
        monkeypatch.setattr(groups, "agreements", lambda mode, role: [])
        worker = worker_guard.WorkerGuard(read_options(), Session())
        monkeypatch.setattr(worker_guard, "_worker", worker)
        monkeypatch.setattr(worker, "_audit", lambda runner: None)
        capturing._failures.clear()
        collectives.install()
        runner_v2.install()
        drafter_v2.install()
        module = "vllm.v1.worker.gpu.model_runner"
        worker.cover(runner_v2.take_captures, module)
        worker.cover(drafter_v2.take_captures, module)
        return worker

    yield armed
    patches.unwrap_all()
