from __future__ import annotations

import os
import shutil
from pathlib import Path

import pytest

from graphguard.blackbox import reading
from graphguard.blackbox.choosing import Rings, load
from graphguard.blackbox.writer import BlackBox, open_box
from graphguard.errors import CommandError


def opened(directory: Path, rank: int, world_size: int, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("RANK", str(rank))
    monkeypatch.setenv("WORLD_SIZE", str(world_size))
    return open_box(directory, 64).path


def test_directory_gives_its_rings_by_rank(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for rank in (10, 9, 0):
        opened(tmp_path, rank, 12, monkeypatch)
    chosen = load([tmp_path])
    assert [box.rank for box in chosen.boxes] == [0, 9, 10]
    assert (chosen.left_out, chosen.unreadable) == ((), ())


def test_other_files_of_a_directory_are_left_alone(tmp_path: Path) -> None:
    path = open_box(tmp_path, 64).path
    (tmp_path / "manifest.rank0.json").write_text("nothing")
    shutil.copy(path, tmp_path / "blackbox.rank0.1.ring.old")
    assert len(load([tmp_path]).boxes) == 1


def test_of_several_rings_of_a_rank_the_newest_is_used(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    paths = [opened(tmp_path, 0, 2, monkeypatch) for _ in range(3)]
    other = opened(tmp_path, 1, 2, monkeypatch)
    chosen = load([tmp_path])
    assert [box.path for box in chosen.boxes] == [str(paths[2]), str(other)]
    assert sorted(file.path for file in chosen.left_out) == sorted(map(str, paths[:2]))
    assert str(paths[2]) in chosen.left_out[0].why


def test_ring_that_is_named_is_used_in_place_of_the_newest(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    old, new = (opened(tmp_path, 0, 1, monkeypatch) for _ in range(2))
    chosen = load([tmp_path, old])
    assert [box.path for box in chosen.boxes] == [str(old)]
    assert [file.path for file in chosen.left_out] == [str(new)]
    assert [box.path for box in load([old, new]).boxes] == [str(old), str(new)]


def test_ranks_of_an_earlier_job_of_another_size_are_left_out(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    earlier = [opened(tmp_path, rank, 4, monkeypatch) for rank in range(4)]
    for rank in range(2):
        opened(tmp_path, rank, 2, monkeypatch)
    chosen = load([tmp_path])
    assert [(box.rank, box.world_size) for box in chosen.boxes] == [(0, 2), (1, 2)]
    assert sorted(file.path for file in chosen.left_out) == sorted(map(str, earlier))
    assert any("rank 3 of a job of 4" in file.why for file in chosen.left_out)


def test_file_named_twice_is_read_once(tmp_path: Path) -> None:
    path = open_box(tmp_path, 64).path
    link = tmp_path / "link"
    link.symlink_to(path)
    assert len(load([tmp_path, path, link]).boxes) == 1


def test_directories_of_several_machines_are_joined(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    paths = [opened(tmp_path / name, rank, 2, monkeypatch) for name, rank in (("b", 1), ("a", 0))]
    assert [box.rank for box in load([path.parent for path in paths]).boxes] == [0, 1]


def test_unreadable_ring_among_good_ones_is_named(tmp_path: Path) -> None:
    open_box(tmp_path, 64)
    (tmp_path / "blackbox.rank1.1.ring").write_bytes(b"x")
    chosen = load([tmp_path, tmp_path / "absent"])
    assert len(chosen.boxes) == 1
    assert {Path(file.path).name for file in chosen.unreadable} == {
        "absent",
        "blackbox.rank1.1.ring",
    }


def test_ring_that_is_being_opened_is_no_damage(tmp_path: Path) -> None:
    open_box(tmp_path, 64)
    (tmp_path / "blackbox.rank1.1.ring").touch()
    chosen = load([tmp_path])
    assert chosen.unreadable == ()
    assert [Path(file.path).name for file in chosen.left_out] == ["blackbox.rank1.1.ring"]


def test_directory_without_rings_cannot_be_shown(tmp_path: Path) -> None:
    with pytest.raises(CommandError, match="holds no black box") as caught:
        load([tmp_path])
    assert "GRAPHGUARD_DIR" in caught.value.hint


def test_nothing_readable_cannot_be_shown(tmp_path: Path) -> None:
    with pytest.raises(CommandError, match=r"no black box could be read.*1 more"):
        load([tmp_path / "absent", tmp_path / "absent too"])
    (tmp_path / "blackbox.rank1.1.ring").touch()
    with pytest.raises(CommandError, match="no black box could be read"):
        load([tmp_path])
    with pytest.raises(CommandError, match="no black box was named"):
        load([])


def test_directory_that_cannot_be_listed_is_an_error(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuse(_path: Path) -> list[str]:
        raise PermissionError(13, "Permission denied")

    monkeypatch.setattr(os, "listdir", refuse)
    with pytest.raises(CommandError, match=r"cannot list .*: Permission denied"):
        load([tmp_path])


def test_only_rings_that_have_changed_are_read_again(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("WORLD_SIZE", "2")
    boxes: list[BlackBox] = []
    for rank in range(2):
        monkeypatch.setenv("RANK", str(rank))
        boxes.append(open_box(tmp_path, 64))
    read: list[Path] = []

    def counted(path: Path) -> reading.Box:
        read.append(path)
        return real(path)

    real = reading.read
    monkeypatch.setattr(reading, "read", counted)
    rings = Rings([tmp_path])
    rings.read()
    assert sorted(read) == sorted(box.path for box in boxes)
    read.clear()
    rings.read()
    assert read == []
    boxes[1].note("new")
    assert [r.note for r in rings.read().boxes[1].records] == ["new"]
    assert read == [boxes[1].path]
    read.clear()
    boxes[0].disown()
    assert rings.read().boxes[0].running is False
    assert read == [boxes[0].path]


def test_record_that_was_only_begun_is_read_when_it_is_there(tmp_path: Path) -> None:
    box = open_box(tmp_path, 64)
    box.note("a")
    slot = 4096 + 128 * 128 + (box.ring.written - 1) * 64
    whole = box.path.read_bytes()
    with box.path.open("r+b") as file:
        file.seek(slot)
        file.write(bytes(64))
    rings = Rings([tmp_path])
    assert rings.read().boxes[0].records == ()
    with box.path.open("r+b") as file:
        file.seek(slot)
        file.write(whole[slot : slot + 64])
    assert [record.note for record in rings.read().boxes[0].records] == ["a"]
