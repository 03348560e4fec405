from __future__ import annotations

from pathlib import Path

import pytest

from graphguard import manifest
from graphguard.audit import load
from graphguard.errors import CommandError
from graphguard.manifest import Manifest


def written(directory: Path, *ranks: int) -> Path:
    for rank in ranks:
        manifest.write(Manifest(rank, 12, ()), directory)
    return directory


def test_directory_gives_its_manifests_by_rank(tmp_path: Path) -> None:
    loaded = load([written(tmp_path / "run", 10, 9, 0)])
    assert [m.manifest.rank for m in loaded.manifests] == [0, 9, 10]
    assert loaded.unreadable == []


def test_other_files_of_a_directory_are_left_alone(tmp_path: Path) -> None:
    directory = written(tmp_path / "run", 0)
    (directory / "notes.json").write_text("nothing")
    assert len(load([directory]).manifests) == 1
    assert load([directory]).unreadable == []


def test_file_named_twice_is_read_once(tmp_path: Path) -> None:
    directory = written(tmp_path / "run", 0)
    link = tmp_path / "link.json"
    link.symlink_to(directory / "manifest.rank0.json")
    assert len(load([directory, directory / "manifest.rank0.json", link]).manifests) == 1


def test_directories_of_several_machines_are_joined(tmp_path: Path) -> None:
    paths = [written(tmp_path / "b", 1), written(tmp_path / "a", 0)]
    assert [m.manifest.rank for m in load(paths).manifests] == [0, 1]


def test_unreadable_file_among_good_ones_is_a_finding(tmp_path: Path) -> None:
    directory = written(tmp_path / "run", 0)
    (directory / "manifest.rank1.json").write_bytes(b"{")
    loaded = load([directory, tmp_path / "absent.json"])
    assert len(loaded.manifests) == 1
    assert [finding.rule for finding in loaded.unreadable] == ["unreadable-manifest"] * 2
    assert "cut off" in loaded.unreadable[0].what
    assert loaded.unreadable[1].evidence == (str(tmp_path / "absent.json"),)


def test_directory_without_manifests_cannot_be_audited(tmp_path: Path) -> None:
    with pytest.raises(CommandError, match="holds no manifest") as caught:
        load([tmp_path])
    assert "GRAPHGUARD_DIR" in caught.value.hint


def test_nothing_readable_cannot_be_audited(tmp_path: Path) -> None:
    loop = tmp_path / "loop.json"
    loop.symlink_to(loop)
    with pytest.raises(CommandError, match=r"no manifest could be read.*1 more"):
        load([loop, tmp_path / "absent.json"])


def test_name_too_long_for_any_file_is_unreadable() -> None:
    with pytest.raises(CommandError, match="name too long"):
        load([Path("x" * 300)])
