"""``graphguard.install()`` in processes of its own, and what it refuses."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

import graphguard
from graphguard import BatchDescriptor, ConfigurationError, Mode, Session, manifest
from graphguard.blackbox.events import Event
from graphguard.blackbox.reading import read
from graphguard.graphs.emulated import EmulatedGraph, capture
from graphguard.recorders.spine import torch_adapter

CAPTURE = """
import torch
from graphguard.blackbox.events import Event
from graphguard.blackbox.reading import read
from graphguard.graphs.emulated import EmulatedGraph, capture
graph = EmulatedGraph()
with capture(graph):
    out = torch.zeros(4) + 1
"""


@pytest.fixture(autouse=True)
def _uninstalled() -> Iterator[None]:
    yield
    graphguard.uninstall()


def run(code: str, **environment: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-c", code],
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
        cwd=Path(__file__).parents[2],
        env={"PATH": "/usr/bin:/bin", "GRAPHGUARD_RING_ENTRIES": "64", **environment},
    )


def test_a_process_is_recorded_by_its_environment_alone(tmp_path: Path) -> None:
    done = run(
        f"import graphguard{CAPTURE}graph.replay()",
        GRAPHGUARD_INSTALL="1",
        GRAPHGUARD_DIR=str(tmp_path),
    )

    assert done.returncode == 0, done.stderr
    (path,) = tmp_path.glob("manifest.rank0.json")
    assert [str(s) for s in manifest.read(path).signatures] == ["graph/full/pool0.0 0t"]
    assert len(list(tmp_path.glob("blackbox.rank0*.ring"))) == 1


def test_a_graph_that_is_never_launched_is_in_the_manifest_at_the_end(tmp_path: Path) -> None:
    done = run(f"import graphguard{CAPTURE}", GRAPHGUARD_INSTALL="1", GRAPHGUARD_DIR=str(tmp_path))

    assert done.returncode == 0, done.stderr
    assert len(manifest.read(tmp_path / "manifest.rank0.json").signatures) == 1


def test_without_the_variable_nothing_is_recorded(tmp_path: Path) -> None:
    done = run(f"import graphguard{CAPTURE}graph.replay()", GRAPHGUARD_DIR=str(tmp_path))

    assert done.returncode == 0, done.stderr
    assert not list(tmp_path.iterdir())


def test_the_variable_alone_imports_no_torch() -> None:
    code = "import sys, graphguard; print('torch' in sys.modules)"

    assert run(code, GRAPHGUARD_INSTALL="1").stdout.strip() == "False"


@pytest.mark.parametrize(
    "environment",
    [
        {"GRAPHGUARD_INSTALL": "yes"},
        {"GRAPHGUARD_INSTALL": "1", "GRAPHGUARD_MODE": "sometimes"},
    ],
)
def test_a_setting_that_cannot_be_meant_does_not_stop_the_program(
    environment: dict[str, str],
) -> None:
    done = run("import graphguard, torch; print('runs')", **environment)

    assert done.stdout.strip() == "runs"
    assert "graphguard is not installed" in done.stderr


def test_a_forked_child_has_a_black_box_of_its_own(tmp_path: Path) -> None:
    fork = "import os\nchild = os.fork()\n"
    wait = "\nif child:\n    raise SystemExit(os.waitpid(child, 0)[1])\n"
    done = run(
        f"import graphguard{CAPTURE}graph.replay()\n{fork}{CAPTURE}graph.replay(){wait}",
        GRAPHGUARD_INSTALL="1",
        GRAPHGUARD_DIR=str(tmp_path),
    )

    assert done.returncode == 0, done.stderr
    rings = [read(path) for path in tmp_path.glob("blackbox.rank0*.ring")]
    captures = [[r.event for r in ring.records].count(Event.CAPTURE) for ring in rings]
    assert sorted(captures) == [1, 2]


def test_installed_again_it_is_the_same() -> None:
    session = Session()
    first = graphguard.install("observe", session)

    assert graphguard.install("observe") is first
    with pytest.raises(ConfigurationError, match="installed with mode observe, and enforce"):
        graphguard.install("enforce")


def test_graphs_are_seen_until_it_is_uninstalled() -> None:
    session = Session()
    graphguard.install("observe", session)
    graph, later = EmulatedGraph(), EmulatedGraph()
    with capture(graph):
        pass
    graphguard.uninstall()
    with capture(later):
        pass

    assert len(session.signatures) == 1
    assert session.mode is Mode.OBSERVE


def test_in_off_nothing_is_recorded() -> None:
    session = Session()
    installation = graphguard.install("off", session)
    graph = EmulatedGraph()
    with capture(graph):
        pass

    assert installation.signatures == ()
    assert installation.signature_of(graph) is None


def test_a_guard_and_the_installation_record_each_graph_once() -> None:
    session = Session()
    graphguard.install("observe", session)

    def make(batch: BatchDescriptor) -> graphguard.Captured:
        graph = EmulatedGraph()
        with capture(graph):
            pass
        return graphguard.Captured(graph)

    guarded = graphguard.guard("target", session=session)(make)
    guarded.warm_up([BatchDescriptor.of(2, 2)])
    guarded(BatchDescriptor.of(2, 2))

    assert [str(signature) for signature in session.signatures] == ["target/full 2x2"]


def test_a_graph_that_was_not_recorded_cannot_be_described() -> None:
    installation = graphguard.install("observe", Session())

    with pytest.raises(ConfigurationError, match="EmulatedGraph was not recorded"):
        installation.describe(EmulatedGraph(), role="target")


def test_a_torch_that_is_not_known_is_refused() -> None:
    class Graph:
        def replay(self) -> None: ...

    torch: Any = SimpleNamespace(
        cuda=SimpleNamespace(graphs=SimpleNamespace(CUDAGraph=Graph)), __version__="9.0"
    )
    with pytest.raises(ConfigurationError, match="has no capture_begin, capture_end, reset"):
        torch_adapter(torch)
