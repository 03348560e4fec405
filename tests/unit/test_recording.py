"""Recording a capture made by hand, and the session that keeps it."""

import os
import subprocess
import sys
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch

from graphguard import (
    BatchDescriptor,
    ConfigurationError,
    GraphKey,
    GraphMode,
    Reason,
    Session,
    Signature,
    SignatureTable,
    graphs,
    manifest,
    record,
)
from graphguard.graphs.emulated import EmulatedGraph, capture
from graphguard.nodes import GraphNode, nodes_digest
from graphguard.recorders.graph_nodes import watch_class
from graphguard.session import versions


def test_a_recording_becomes_a_signature_in_session_and_table(session: Session) -> None:
    table, x = SignatureTable(), torch.zeros(8, 4)
    graph = EmulatedGraph()
    with record("drafter", BatchDescriptor.of(4, 2), table=table, session=session) as recording:
        with capture(graph):
            out = x + 1
        recording.captured(graph, inputs={"x": x}, outputs=out)

    signature = recording.signature
    assert session.signatures == [signature]
    assert str(signature) == "drafter/full 4x2"
    assert [t.name for t in signature.inputs] == ["x"]
    assert signature.graph_kind == "emulated"
    assert signature.nodes
    verdict = table.check(table.family(GraphKey("drafter")), 4, 2, 8, 0)
    assert (verdict.reason, verdict.graph) == (Reason.EXACT, 0)


def test_a_cuda_graph_is_looked_at_before_its_capture_ends(
    session: Session, monkeypatch: pytest.MonkeyPatch
) -> None:
    # The CPU build of torch has no CUDA graphs: class and driver are made up here.
    class CUDAGraph:
        def capture_end(self) -> None: ...
        def replay(self) -> None: ...
        def reset(self) -> None: ...

    class Driver:
        def walk_graph(self, graph: int, /) -> tuple[list[Any], int, str]:
            return [("kernel", "add", (1, 1, 1), (1, 1, 1), 0, (8,), 2)] if graph else [], 0, ""

        def capture_of(self, stream: int, /) -> tuple[int, int, int]:
            return 42, stream, 1

    watch_class(CUDAGraph, lambda: 4096, Driver())
    monkeypatch.setattr(torch.version, "cuda", "13.0")
    monkeypatch.setattr(torch.cuda, "CUDAGraph", CUDAGraph)
    graph, unrecorded = CUDAGraph(), CUDAGraph()
    unrecorded.capture_end()
    with record("target", BatchDescriptor.of(1, 1), session=session) as recording:
        graph.capture_end()
        recording.captured(graph)

    node = GraphNode("kernel", "add", (1, 1, 1), (1, 1, 1), 0, (8,), 2)
    assert recording.signature.graph_nodes == (node,)
    assert recording.signature.nodes == nodes_digest([node])
    assert graphs.graph_nodes_of(unrecorded) == ()


def test_piecewise_and_variant_make_the_key(session: Session) -> None:
    with record(
        "target",
        BatchDescriptor.tokens(32),
        graph_mode="piecewise",
        variant="lora=2",
        session=session,
    ):
        pass

    assert session.signatures[0].key == GraphKey("target", GraphMode.PIECEWISE, "lora=2")


def test_a_recording_that_raises_keeps_nothing(session: Session) -> None:
    recording = record("target", BatchDescriptor.of(1, 1), session=session)
    with pytest.raises(ZeroDivisionError), recording:
        _ = 1 / 0

    assert session.signatures == []
    with pytest.raises(ConfigurationError, match="has no signature yet"):
        _ = recording.signature


def test_a_session_without_a_directory_says_what_to_set(session: Session) -> None:
    with pytest.raises(ConfigurationError, match="nothing says where") as raised:
        session.write_manifest()

    assert "GRAPHGUARD_DIR" in raised.value.hint


def test_a_manifest_is_written_on_demand(session: Session, tmp_path: Path) -> None:
    with record("target", BatchDescriptor.of(1, 1), session=session):
        pass

    path = session.write_manifest(tmp_path / "new")

    written = manifest.read(path)
    assert written.signatures == tuple(session.signatures)
    assert written.pid == os.getpid()
    assert written.versions["torch"] == str(torch.__version__)
    assert written.created.endswith("+00:00")


def test_the_engine_that_is_there_is_among_the_versions(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "vllm", SimpleNamespace(__version__="0.33.0"))
    monkeypatch.setitem(sys.modules, "cupy", SimpleNamespace())

    found = versions()

    assert found["vllm"] == "0.33.0"
    assert "cupy" not in found


def test_importing_graphguard_imports_neither_torch_nor_numpy() -> None:
    code = "import sys, graphguard; print({'torch', 'numpy', 'rich'} & set(sys.modules))"
    output = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, check=True, timeout=60
    ).stdout

    assert output.strip() == "set()"


def test_a_capture_of_another_library_is_recorded_without_torch(tmp_path: Path) -> None:
    code = f"""
import sys
import graphguard
from graphguard import BatchDescriptor

class Graph:
    def replay(self): ...
    def reset(self): ...

with graphguard.record("target", BatchDescriptor.of(4, 2)) as recording:
    recording.captured(Graph())
graphguard.write_manifest({str(tmp_path / "m")!r})
assert "torch" not in sys.modules
assert recording.signature.graph_kind == "__main__.Graph"
"""
    subprocess.run([sys.executable, "-c", code], check=True, timeout=60)
    assert (tmp_path / "m" / "manifest.rank0.json").exists()


def test_the_rank_of_a_manifest_is_that_of_the_captures_after_the_process_has_left_its_group(
    session: Session, monkeypatch: pytest.MonkeyPatch
) -> None:
    def place() -> tuple[int, int]:
        written = session.manifest()
        return written.rank, written.world_size

    monkeypatch.setenv("RANK", "2")
    monkeypatch.setenv("WORLD_SIZE", "4")
    session.record(Signature(GraphKey("target"), BatchDescriptor.of(1, 1)))
    assert place() == (2, 4)

    monkeypatch.delenv("RANK")
    monkeypatch.delenv("WORLD_SIZE")
    session.record(Signature(GraphKey("target"), BatchDescriptor.of(2, 1)))
    assert place() == (2, 4)

    monkeypatch.setenv("RANK", "1")
    monkeypatch.setenv("WORLD_SIZE", "2")
    assert place() == (1, 2)
