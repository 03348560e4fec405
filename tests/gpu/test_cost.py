"""What the guard costs on a GPU. Nothing is asserted of speed: the figures go to a file.

``GRAPHGUARD_RESULTS`` names the folder (default ``build/gpu``). The file carries the machine and
the versions, and each figure with its spread over interleaved rounds.
"""

import json
import os
import statistics
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch

from graphguard import BatchDescriptor, Session
from graphguard.session import versions
from tests.gpu.step import Step

EXACT = BatchDescriptor.of(16, 2)
ROUNDS = 200


def host_microseconds(candidates: dict[str, Callable[[], object]]) -> dict[str, dict[str, float]]:
    """Time each candidate on the host in turn, round by round, waiting for the GPU in between."""
    times: dict[str, list[float]] = {name: [] for name in candidates}
    for number in range(ROUNDS + 10):
        for name, call in candidates.items():
            torch.cuda.synchronize()
            began = time.perf_counter_ns()
            call()
            took = (time.perf_counter_ns() - began) / 1e3
            if number >= 10:
                times[name].append(took)
    return {
        name: {
            "median": statistics.median(taken),
            "p99": statistics.quantiles(taken, n=100)[98],
            "min": min(taken),
        }
        for name, taken in times.items()
    }


def keep(name: str, figures: dict[str, Any]) -> None:
    folder = Path(os.environ.get("GRAPHGUARD_RESULTS", "build/gpu"))
    folder.mkdir(parents=True, exist_ok=True)
    properties = torch.cuda.get_device_properties(0)
    machine = {
        "gpu": properties.name,
        "compute_capability": f"{properties.major}.{properties.minor}",
        "driver": _driver(),
        **versions(),
    }
    content = {"machine": machine, "unit": "microseconds on the host", "figures": figures}
    (folder / f"{name}.json").write_text(json.dumps(content, indent=2) + "\n")


def _driver() -> str:
    try:
        return Path("/proc/driver/nvidia/version").read_text().splitlines()[0]
    except OSError:
        return "unknown"


@pytest.mark.parametrize("num_layers", [1, 50, 1000])
def test_guarded_against_bare_replay(num_layers: int, session: Session) -> None:
    with torch.no_grad():
        step = Step(num_layers)
        guarded = step.guarded(session, "16x2")
        graph = guarded._graphs.captured[0].graph
        figures = host_microseconds(
            {"bare": graph.replay, "guarded": lambda: guarded(EXACT)},
        )
    keep(f"replay-{2 * num_layers}-nodes", figures)


def test_capture_with_and_without_recording() -> None:
    def capture(mode: str) -> Callable[[], object]:
        step = Step(50)
        return lambda: step.guarded(Session(), "16x2", mode=mode)

    with torch.no_grad():
        figures = host_microseconds(
            {"not recorded": capture("off"), "recorded": capture("enforce")}
        )
    keep("capture-100-nodes", figures)
