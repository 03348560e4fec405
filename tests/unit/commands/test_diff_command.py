from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest
from msgspec.json import decode

from graphguard import manifest
from graphguard.commands import main
from graphguard.manifest import Manifest
from graphguard.signature import Signature
from tests.unit.audit.jobs import call, graph


def written(directory: Path, *ranks: list[Signature]) -> str:
    for rank, graphs in enumerate(ranks):
        manifest.write(Manifest(rank, len(ranks), tuple(graphs)), directory)
    return str(directory)


def test_the_same_ends_with_0(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    before = written(tmp_path / "a", [graph(call())], [graph(call())])
    after = written(tmp_path / "b", [graph(call())], [graph(call())])
    assert main(["diff", before, after]) == 0
    assert "2 the same" in capsys.readouterr().out


def test_a_difference_ends_with_1_and_names_the_graph(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    before = written(tmp_path / "a", [graph(call())])
    after = written(tmp_path / "b", [graph(call(count=1))])
    assert main(["diff", before, after]) == 1
    assert "target/full 16x2" in capsys.readouterr().out
    assert main(["diff", "--json", before, after]) == 1
    document = decode(capsys.readouterr().out)
    assert document["before"] == before
    assert [on["difference"]["change"] for on in document["graphs"]] == ["changed"]


def test_single_manifests_of_two_ranks_are_compared(tmp_path: Path) -> None:
    written(tmp_path / "a", [graph(call())], [graph(call(count=1))])
    first, second = (str(tmp_path / "a" / f"manifest.rank{rank}.json") for rank in (0, 1))
    assert main(["diff", first, first]) == 0
    assert main(["diff", first, second]) == 1


def test_what_cannot_be_read_is_no_difference(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    before = written(tmp_path / "a", [], [])
    broken = written(tmp_path / "b", [], [])
    (tmp_path / "b" / "manifest.rank1.json").write_bytes(b"\xff")
    empty = tmp_path / "empty"
    empty.mkdir()

    for other in (broken, str(empty), str(tmp_path / "absent")):
        assert main(["diff", before, other]) == 2
    captured = capsys.readouterr()
    assert captured.out == ""
    assert captured.err.count("Hint:") == 3


def test_recordings_without_a_common_rank_end_with_2(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    before = written(tmp_path / "a", [], [])
    manifest.write(Manifest(5, 8, ()), tmp_path / "b")
    assert main(["diff", before, str(tmp_path / "b")]) == 2
    assert "no rank in common" in capsys.readouterr().err


def test_it_imports_no_torch_and_rich_only_for_a_table(tmp_path: Path) -> None:
    before = written(tmp_path / "a", [graph(call())])
    after = written(tmp_path / "b", [graph(call(count=1))])
    code = (
        "import sys\n"
        "from graphguard.commands import main\n"
        "main(sys.argv[1:])\n"
        "print(sorted({'torch', 'rich', 'numpy'} & sys.modules.keys()))\n"
    )
    for other, modules in ((before, "[]"), (after, "['rich']")):
        ended = subprocess.run(
            [sys.executable, "-c", code, "diff", before, other],
            capture_output=True,
            text=True,
            check=False,
            timeout=60,
        )
        assert ended.stdout.splitlines()[-1] == modules
