from __future__ import annotations

from pathlib import Path

import pytest
from msgspec.json import decode

from graphguard import manifest
from graphguard.commands import main
from graphguard.manifest import Manifest
from graphguard.signature import GraphMode, Signature
from tests.unit.audit.jobs import call, graph


def written(directory: Path, *ranks: list[Signature]) -> str:
    for rank, graphs in enumerate(ranks):
        manifest.write(Manifest(rank, len(ranks), tuple(graphs)), directory)
    return str(directory)


def test_equal_ranks_end_with_0(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    graphs = [graph(call(group="0[0-1]", size=2))]
    assert main(["audit", written(tmp_path / "run", graphs, graphs)]) == 0
    assert "2 ranks, 1 graph, 2 collective calls: no difference" in capsys.readouterr().out


def test_different_ranks_end_with_1(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    ranks = [[graph(call(count=count))] for count in (1, 1, 2)]
    assert main(["audit", written(tmp_path / "run", *ranks)]) == 1
    told = capsys.readouterr().out
    assert "error: collective-count" in told
    assert str(tmp_path / "run" / "manifest.rank0.json") in told


def test_json_holds_every_finding(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    ranks = [[graph(call(count=count), batch=f"{n}x1") for n in range(1, 9)] for count in (1, 2)]
    assert main(["audit", "--json", written(tmp_path / "run", *ranks)]) == 1
    document = decode(capsys.readouterr().out)
    assert document["summary"]["rules"] == {"collective-count": 8}
    assert len(document["findings"]) == 8
    assert document["ranks"] == [0, 1]


def test_unreadable_manifest_is_a_finding(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    directory = written(tmp_path / "run", [], [])
    (tmp_path / "run" / "manifest.rank1.json").write_bytes(b"\xff")
    assert main(["audit", directory]) == 1
    told = capsys.readouterr().out
    assert "error: unreadable-manifest" in told
    assert "error: missing-rank" in told


def test_nothing_to_audit_ends_with_2(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["audit", str(tmp_path)]) == 2
    assert main(["audit", str(tmp_path / "absent")]) == 2
    captured = capsys.readouterr()
    assert captured.out == ""
    assert captured.err.count("Hint:") == 2


def test_query_length_can_be_given(tmp_path: Path) -> None:
    directory = written(tmp_path / "run", [graph(batch="5t", mode=GraphMode.PIECEWISE)])
    assert main(["audit", directory]) == 0
    assert main(["audit", directory, "--query-len", "target=5"]) == 0
    assert main(["audit", directory, "--query-len", "drafter=2"]) == 0
    assert main(["audit", directory, "--query-len", "drafter=5", "--query-len", "target=2"]) == 1


@pytest.mark.parametrize(
    "value", ["2", "target", "target=", "=2", "target=0", "target=-1", "t=1e3"]
)
def test_query_length_that_is_none_is_refused(
    value: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    with pytest.raises(SystemExit) as caught:
        main(["audit", str(tmp_path), "--query-len", value])
    assert caught.value.code == 2
    assert "--query-len" in capsys.readouterr().err
