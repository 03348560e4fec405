from __future__ import annotations

from pathlib import Path

import msgspec
import pytest
from msgspec.json import decode

from graphguard import manifest
from graphguard.commands import main
from graphguard.nodes import GraphNode

GOLDEN = Path(__file__).parents[2] / "data" / "manifest-v1.json"


def test_graphs_are_a_table(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("COLUMNS", "120")
    assert main(["show", str(GOLDEN)]) == 0
    told = capsys.readouterr().out
    assert "rank 1 of 4, host node-1, pid 4242, mode observe" in told
    row = next(line.split() for line in told.splitlines() if "16x2" in line)
    assert row == ["target/full", "16x2", "32", "4", "1", "4f445e028893", "torch.cuda"]
    assert "all_reduce" not in told


def test_collectives_are_listed_in_order(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["show", str(GOLDEN), "--collectives"]) == 0
    lines = capsys.readouterr().out.splitlines()
    start = lines.index("target/full 16x2")
    calls = manifest.read(GOLDEN).signatures[0].collectives
    assert [line.split(maxsplit=1) for line in lines[start + 1 : start + 5]] == [
        [str(position), str(call)] for position, call in enumerate(calls)
    ]


def test_json_holds_the_digests_in_full(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["show", str(GOLDEN), "--json"]) == 0
    document = decode(capsys.readouterr().out)
    signature = manifest.read(GOLDEN).signatures[0]
    assert document["schema"] == "graphguard.show"
    assert document["graphs"][0] == {
        "key": "target/full",
        "batch": "16x2",
        "tokens": 32,
        "collectives": 4,
        "inputs": 1,
        "shared_digest": signature.shared_digest,
        "local_digest": signature.local_digest,
        "kind": "torch.cuda",
    }


def test_json_lists_calls_where_they_are_asked_for(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["show", str(GOLDEN), "--json", "--collectives"]) == 0
    calls = decode(capsys.readouterr().out)["graphs"][0]["calls"]
    assert [call["operation"] for call in calls] == [
        "all_reduce",
        "all_gather",
        "all_reduce",
        "broadcast",
    ]


@pytest.fixture
def with_nodes(tmp_path: Path) -> Path:
    nodes = (
        GraphNode("kernel", "gemm", (8, 1, 1), (128, 1, 1), count=3),
        GraphNode("kernel", "ncclDevKernel_SendRecv(ncclDevKernelArgsStorage<4096ul>)"),
    )
    golden = manifest.read(GOLDEN)
    signature = msgspec.structs.replace(golden.signatures[0], graph_nodes=nodes)
    return manifest.write(msgspec.structs.replace(golden, signatures=(signature,)), tmp_path)


def test_nodes_are_listed_and_those_that_communicate_marked(
    with_nodes: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["show", str(with_nodes), "--nodes"]) == 0
    lines = capsys.readouterr().out.splitlines()
    start = lines.index("target/full 16x2")
    assert lines[start + 1 :] == [
        "  3 × kernel gemm (grid 8x1x1, block 128x1x1)",
        "  kernel ncclDevKernel_SendRecv(ncclDevKernelArgsStorage<4096ul>)  [NCCL]",
    ]


def test_json_lists_nodes_where_they_are_asked_for(
    with_nodes: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["show", str(with_nodes), "--json", "--nodes"]) == 0
    nodes = decode(capsys.readouterr().out)["graphs"][0]["nodes"]
    assert [(node["kind"], node.get("count", 1)) for node in nodes] == [
        ("kernel", 3),
        ("kernel", 1),
    ]


def test_file_that_is_no_manifest_ends_with_2(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["show", str(tmp_path / "absent")]) == 2
    (tmp_path / "other.json").write_text("{}")
    assert main(["show", str(tmp_path / "other.json")]) == 2
    assert capsys.readouterr().err.count("Hint:") == 2
