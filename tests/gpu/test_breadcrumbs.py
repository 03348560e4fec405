"""Marks in real CUDA graphs: what they add, what they cost, and what they say of a stall.

Figures go to the folder that ``GRAPHGUARD_RESULTS`` names, as those of ``test_cost.py`` do.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

import pytest
import torch

from graphguard import BatchDescriptor, Session, _core, graphs, record
from graphguard.breadcrumbs import marking, process, telling
from graphguard.breadcrumbs.process import Breadcrumbs, open_breadcrumbs
from graphguard.errors import BlackBoxError
from graphguard.recorders import graph_marks
from graphguard.watch.breadcrumbs import KINDS, CrumbState, read_breadcrumbs
from tests.gpu.breadcrumbs_program import ELEMENTS, PASSED, mark_every_kernel
from tests.gpu.test_cost import host_microseconds, keep
from tests.native.cmake_target import REPOSITORY

DEVICE_KINDS = KINDS[:4]
LAYERS = 50
EVERY = 5
"""Of so many layers, the last one's kernel gets a mark, as a collective would."""

REPLAYS = 20
BATCH = BatchDescriptor.of(4, 2)
SEEN_WITHIN = 30.0


class Layers:
    """A row of kernels in a graph that is kept, so that marks can be added to it."""

    def __init__(self) -> None:
        self.x = torch.zeros(64, 128, device="cuda")
        self.graph = torch.cuda.CUDAGraph(keep_graph=True)
        self._run()
        torch.cuda.synchronize()
        with torch.cuda.graph(self.graph):
            self._run()
        self.handle = self.graph.raw_cuda_graph()
        self.x.zero_()

    def _run(self) -> None:
        for _ in range(LAYERS):
            self.x.mul_(2).add_(1).clamp_(max=1e6)

    def mark(self, crumbs: Breadcrumbs, kind: int) -> _core.GraphMarks:
        """Add marks of a kind, and return them."""
        marker = _core.GraphMarker(crumbs.native, "")
        assert marker.prepare() == ""
        names, kernels, problem = marker.kernels(self.handle)
        assert problem == ""
        assert len(kernels) == 3 * LAYERS
        chosen = kernels[3 * EVERY - 1 :: 3 * EVERY]
        marks = crumbs.native.add([names[name] for _, name in chosen], kind, 0)
        assert marks is not None
        assert marker.mark(self.handle, [node for node, _ in chosen], marks, kind) == ""
        return marks

    def replay(self, times: int) -> torch.Tensor:
        self.x.zero_()
        for _ in range(times):
            self.graph.replay()
        torch.cuda.synchronize()
        return self.x.clone()


@pytest.fixture
def directory() -> Iterator[Path]:
    # In memory: not every file system lets its pages be mapped to a device.
    folder = Path(f"/dev/shm/graphguard-crumbs-{os.getpid()}")  # noqa: S108
    folder.mkdir(mode=0o700)
    try:
        yield folder
    finally:
        for path in folder.iterdir():
            path.unlink()
        folder.rmdir()


@pytest.fixture
def crumbs(directory: Path) -> Breadcrumbs:
    return open_breadcrumbs(directory)


def count_of_nodes(handle: int) -> int:
    nodes, _, error = _core.walk_graph(handle)
    assert error == ""
    return sum(node[6] for node in nodes)


@pytest.mark.parametrize("kind", range(len(DEVICE_KINDS)), ids=DEVICE_KINDS)
def test_marks_are_right_after_replays_and_change_no_output(crumbs: Breadcrumbs, kind: int) -> None:
    plain, marked = Layers(), Layers()
    before = count_of_nodes(marked.handle)
    marks = marked.mark(crumbs, kind)
    constant = DEVICE_KINDS[kind] in {"memset", "memop"}
    assert count_of_nodes(marked.handle) == before + len(marks) + constant
    marked.graph.instantiate()
    for _ in range(REPLAYS):
        marks.launch()
    assert torch.equal(marked.replay(REPLAYS), plain.replay(REPLAYS))
    (state,) = read_breadcrumbs(crumbs.path)
    assert state.positions == LAYERS // EVERY
    assert (state.launched, state.finished, state.in_flight) == (REPLAYS, REPLAYS, 0)


def test_what_each_kind_costs(crumbs: Breadcrumbs) -> None:
    candidates: dict[str, Callable[[], object]] = {}
    kept: list[Any] = [Layers()]
    candidates["without"] = kept[0].graph.replay
    for kind, name in enumerate(DEVICE_KINDS):
        layers = Layers()
        marks = layers.mark(crumbs, kind)
        layers.graph.instantiate()
        kept += [layers, marks]
        candidates[name] = _launched(marks, layers.graph.replay)
    for call in candidates.values():
        call()
    figures = {
        "launch": host_microseconds(candidates),
        "replay": host_microseconds({name: _ended(call) for name, call in candidates.items()}),
        "nodes": {"kernels": 3 * LAYERS, "marks": LAYERS // EVERY},
    }
    keep("breadcrumbs", figures)


def _launched(marks: _core.GraphMarks, replay: Callable[[], object]) -> Callable[[], object]:
    def launched() -> None:
        marks.launch()
        replay()

    return launched


def _ended(call: Callable[[], object]) -> Callable[[], object]:
    def ended() -> None:
        call()
        torch.cuda.synchronize()

    return ended


@pytest.fixture
def wanted(directory: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("GRAPHGUARD_BREADCRUMBS", "1")
    monkeypatch.setenv("GRAPHGUARD_DIR", str(directory))
    monkeypatch.setattr(process, "_process", process._Process())
    monkeypatch.setattr(graph_marks, "_marker", None)
    monkeypatch.setattr(telling, "_told", set())
    monkeypatch.setitem(vars(marking), "kernel_match", None)
    mark_every_kernel()
    return directory


def test_a_recorded_capture_gets_marks_and_keeps_its_digest(
    wanted: Path, session: Session, monkeypatch: pytest.MonkeyPatch
) -> None:
    x = torch.zeros(256, device="cuda")

    def captured() -> tuple[torch.cuda.CUDAGraph, str]:
        graph = torch.cuda.CUDAGraph()
        with record("target", BATCH, session=session) as recording:
            with graphs.capture(graph):
                x.add_(1).mul_(2)
            recording.captured(graph)
        return graph, recording.signature.nodes

    monkeypatch.setenv("GRAPHGUARD_BREADCRUMBS", "0")
    _, plain = captured()
    monkeypatch.setenv("GRAPHGUARD_BREADCRUMBS", "1")
    graph, with_marks = captured()
    assert with_marks == plain
    for _ in range(3):
        graph.replay()
    torch.cuda.synchronize()
    (path,) = wanted.glob("*.crumbs")
    (state,) = read_breadcrumbs(path)
    assert (state.graph, state.launched, state.finished) == ("target/full 4x2", 3, 3)
    assert state.positions == 2
    assert x[0].item() == 14

    graph.reset()
    assert read_breadcrumbs(path) == ()


# --- stalls, seen from another process


@contextmanager
def started(*arguments: str, directory: Path, **environment: str) -> Iterator[Any]:
    """Start the program, and end it by its id."""
    with subprocess.Popen(
        [sys.executable, "-m", "tests.gpu.breadcrumbs_program", *arguments],
        env={
            **os.environ,
            "PYTHONPATH": str(REPOSITORY),
            "GRAPHGUARD_BREADCRUMBS": "1",
            "GRAPHGUARD_DIR": str(directory),
            **environment,
        },
        cwd=REPOSITORY,
        stdout=subprocess.PIPE,
        text=True,
    ) as running:
        try:
            yield running
        finally:
            running.kill()


def line_of(running: subprocess.Popen[str]) -> dict[str, Any]:
    assert running.stdout is not None
    line = running.stdout.readline()
    assert line, "the program ended early"
    told: dict[str, Any] = json.loads(line)
    return told


def seen(directory: Path, rank: int, reached: int) -> tuple[CrumbState, int]:
    """Wait until a replay stands where it must; return its state and when that was seen."""
    deadline = time.monotonic() + SEEN_WITHIN
    state = None
    while time.monotonic() < deadline:
        for path in directory.glob(f"breadcrumbs.rank{rank}.*"):
            with suppress(BlackBoxError):
                for state in read_breadcrumbs(path, in_flight=True):
                    if state.reached == reached:
                        return state, time.monotonic_ns()
        time.sleep(0.001)
    raise AssertionError(f"no replay was seen to stand after {reached} calls: {state}")


@pytest.mark.parametrize("way", ["wait", "spin"])
def test_a_stall_in_a_replay_is_seen_where_it_is_until_it_is_released(
    directory: Path, tmp_path: Path, way: str
) -> None:
    release = tmp_path / "release"
    with started(way, str(release), directory=directory) as running:
        launched = line_of(running)
        state, at_ns = seen(directory, 0, 1)
        # It stays there: what is seen is a stall, and no moment of a replay that goes on.
        time.sleep(0.5)
        later, _ = seen(directory, 0, 1)
        release.touch()
        ended = line_of(running)
    assert later == state
    assert f"{state.digest:016x}" == launched["digest"]
    assert (state.launched, state.finished) == (1, 0)
    assert state.positions == (4 if way == "spin" else 3)
    assert ("graphguard_spin" in state.next_call) == (way == "spin")
    assert ended["values"] == [5.0]
    (path,) = directory.glob("*.crumbs")
    assert read_breadcrumbs(path)[0].finished == 1
    keep(f"breadcrumbs-{way}", {"seen_ms": (at_ns - launched["at_ns"]) / 1e6})


@pytest.fixture
def _two_ranks_fit() -> None:
    nccl = torch.cuda.nccl.version()
    if torch.cuda.device_count() < 2 and nccl < (2, 30):
        pytest.skip("two ranks on one GPU need NCCL 2.30 or newer")


@pytest.mark.usefixtures("_two_ranks_fit")
def test_two_ranks_that_replay_different_graphs_are_named_with_the_call(
    directory: Path, tmp_path: Path
) -> None:
    nccl = {
        "NCCL_MULTI_RANK_GPU_ENABLE": "1",
        "NCCL_NVLS_ENABLE": "0",
        "NCCL_MAX_CTAS": "2",
        "WORLD_SIZE": "2",
    }
    file = str(tmp_path / "group")
    with (
        started("rank", file, "0", directory=directory, RANK="0", **nccl) as first,
        started("rank", file, "1", directory=directory, RANK="1", **nccl) as second,
    ):
        assert line_of(first)["calls"] == len(ELEMENTS)
        assert line_of(second)["calls"] == PASSED
        state, _ = seen(directory, 0, PASSED)
        (path,) = directory.glob("breadcrumbs.rank1.*")
        deadline = time.monotonic() + SEEN_WITHIN
        while read_breadcrumbs(path, in_flight=True) and time.monotonic() < deadline:
            time.sleep(0.001)
        (other,) = read_breadcrumbs(path)
    assert (state.reached, state.positions) == (PASSED, len(ELEMENTS))
    assert state.next_call == f"all_reduce of {ELEMENTS[PASSED]} float32 over 0[0-1]"
    assert (other.finished, other.in_flight, other.positions) == (1, 0, PASSED)
