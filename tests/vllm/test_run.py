"""``graphguard run`` and ``graphguard diff`` on real engines that know nothing of graphguard."""

from __future__ import annotations

import os
import sys
from pathlib import Path
from typing import Any

import msgspec
import pytest

from graphguard.commands import main
from tests.vllm import wheels
from tests.vllm.engine import Emulation, engine

pytestmark = pytest.mark.timeout(900)

PROMPTS = [[3 + i, 9, 14 + i] for i in range(5)]
# Each rank has the graphs of the target and those of the drafter, with these collective calls.
CALLS_OF_TARGET, CALLS_OF_DRAFTER = 5, 3


def record(directory: Path, sizes: tuple[int, ...]) -> dict[str, Any]:
    """Run an engine that captures graphs of these sizes; return what the run reported of it."""
    command = [sys.executable, "-m", "graphguard", "run", "--mode", "observe"]
    under = [*command, "--output", str(directory), "--"]
    # The harness leaves graphguard's plugin out and its mode off: it is the run that sets them.
    with engine(emulate=Emulation(sizes=sizes), under=under) as run:
        tokens = run.generate(PROMPTS, 8)
    assert [len(answer) for answer in tokens] == [8] * len(PROMPTS)
    assert run.processes.leader.returncode == 0, run.log[-4000:]
    report: dict[str, Any] = msgspec.json.decode((directory / "report.json").read_bytes())
    return report


@pytest.fixture(scope="module")
def recordings(tmp_path_factory: pytest.TempPathFactory) -> list[tuple[Path, dict[str, Any]]]:
    folder = tmp_path_factory.mktemp("recordings")
    sizes = {"before": (2, 4, 8), "after": (2, 8, 16)}
    return [(folder / name, record(folder / name, of)) for name, of in sizes.items()]


def test_an_engine_that_is_only_run_is_recorded_on_every_rank_and_audited(
    recordings: list[tuple[Path, dict[str, Any]]],
) -> None:
    _, report = recordings[0]

    assert report["audit"]["ranks"] == [0, 1]
    assert [graph["graph"] for graph in report["audit"]["graphs"]] == [
        *(f"target/full {n}x2" for n in (4, 2, 1)),
        *(f"drafter/piecewise {n}t" for n in (8, 4, 2)),
    ]
    collectives = 2 * 3 * (CALLS_OF_TARGET + CALLS_OF_DRAFTER)
    assert report["audit"]["summary"] == {
        "errors": 0,
        "warnings": 0,
        "rules": {},
        "collectives": collectives,
    }
    # The program, the engine core and two workers at least.
    assert report["processes"]["loaded"] >= 4
    assert report["processes"]["refused"] == []


def test_the_black_boxes_of_the_workers_agree(
    recordings: list[tuple[Path, dict[str, Any]]],
) -> None:
    _, report = recordings[0]

    assert report["blackbox"]["ranks"] == [0, 1]
    assert report["blackbox"]["first_difference"] is None
    assert sum(compared["steps"] for compared in report["blackbox"]["compared"]) > 0
    assert report["exit_code"] == 0
    assert report["found"] is False


def test_two_settings_of_an_engine_differ_in_the_graphs_of_their_sizes_only(
    recordings: list[tuple[Path, dict[str, Any]]], capsys: pytest.CaptureFixture[str]
) -> None:
    before, after = (str(directory) for directory, _ in recordings)

    assert main(["diff", "--json", before, after]) == 1

    told = msgspec.json.decode(capsys.readouterr().out)
    changes = [(on["difference"]["change"], on["difference"]["graph"]) for on in told["graphs"]]
    assert sorted(changes) == [
        ("added", "drafter/piecewise 16t"),
        ("added", "target/full 8x2"),
        ("gone", "drafter/piecewise 4t"),
        ("gone", "target/full 2x2"),
    ]
    assert all(on["ranks"] == [0, 1] for on in told["graphs"])
    assert told["alike"] == 2 * 4
    assert main(["diff", before, before]) == 0


def test_two_versions_of_vllm_differ_in_what_their_drafters_run_and_in_no_call(
    recordings: list[tuple[Path, dict[str, Any]]],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    path = os.environ.get("PYTHONPATH", "")
    monkeypatch.setenv("PYTHONPATH", os.pathsep.join([str(wheels.other_cpu_build()), path]))
    report = record(tmp_path / "other", (2, 4, 8))
    assert report["exit_code"] == 0

    found = main(["diff", "--json", str(tmp_path / "other"), str(recordings[0][0])])

    told = msgspec.json.decode(capsys.readouterr().out)
    assert told["versions"] == [{"what": "version of vllm", "before": "0.31.0", "after": "0.32.0"}]
    # Emulated graphs have a digest of their operations and nothing more of them.
    differences = [on["difference"] for on in told["graphs"]]
    assert sorted(graph["graph"] for graph in differences) == [
        f"drafter/piecewise {n}t" for n in (2, 4, 8)
    ]
    assert all(graph["nodes"] is not None for graph in differences)
    assert all((graph["calls"], graph["tensors"]) == (None, []) for graph in differences)
    # The target's three graphs, on two ranks.
    assert (found, told["alike"]) == (1, 2 * 3)
