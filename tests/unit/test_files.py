from __future__ import annotations

import os
import stat
from pathlib import Path

import pytest

from graphguard.errors import ManifestError
from graphguard.files import read_bounded, write_private


def mode(path: Path) -> int:
    return stat.S_IMODE(path.stat().st_mode)


def test_file_and_directory_are_private(tmp_path: Path) -> None:
    path = tmp_path / "new" / "file"
    write_private(path, b"content")
    assert path.read_bytes() == b"content"
    assert mode(path) == 0o600
    assert mode(path.parent) == 0o700


def test_umask_does_not_widen_the_file(tmp_path: Path) -> None:
    before = os.umask(0)
    try:
        write_private(tmp_path / "new" / "file", b"")
    finally:
        os.umask(before)
    assert mode(tmp_path / "new" / "file") == 0o600
    assert mode(tmp_path / "new") == 0o700


@pytest.mark.parametrize("permissions", [0o777, 0o770, 0o720, 0o702])
def test_directory_that_others_may_write_to_is_refused(tmp_path: Path, permissions: int) -> None:
    shared = tmp_path / "shared"
    shared.mkdir()
    shared.chmod(permissions)
    with pytest.raises(ManifestError, match="others could replace") as caught:
        write_private(shared / "file", b"")
    assert "chmod 700" in caught.value.hint
    assert list(shared.iterdir()) == []


def test_directory_that_is_a_file_is_refused(tmp_path: Path) -> None:
    (tmp_path / "file").write_bytes(b"")
    with pytest.raises(ManifestError, match="cannot write"):
        write_private(tmp_path / "file" / "manifest", b"")


def test_failed_write_leaves_the_old_content_and_no_litter(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tmp_path / "run" / "file"
    write_private(path, b"old")

    def fail(_descriptor: int) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(os, "fsync", fail)
    with pytest.raises(ManifestError, match="No space left"):
        write_private(path, b"new")
    assert path.read_bytes() == b"old"
    assert list(path.parent.iterdir()) == [path]


def test_content_is_on_disk_before_it_takes_the_name(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tmp_path / "run" / "file"
    seen: list[bool] = []
    monkeypatch.setattr(os, "fsync", lambda _descriptor: seen.append(path.exists()))
    write_private(path, b"new")
    assert seen == [False]


def test_link_at_the_name_is_replaced_and_not_followed(tmp_path: Path) -> None:
    victim = tmp_path / "victim"
    victim.write_bytes(b"precious")
    path = tmp_path / "run" / "file"
    path.parent.mkdir(mode=0o700)
    path.symlink_to(victim)
    write_private(path, b"new")
    assert victim.read_bytes() == b"precious"
    assert not path.is_symlink()


def test_link_planted_at_the_temporary_name_is_not_followed(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    victim = tmp_path / "victim"
    victim.write_bytes(b"precious")
    directory = tmp_path / "run"
    directory.mkdir(mode=0o700)
    monkeypatch.setattr(os, "urandom", bytes)
    (directory / f".file.{bytes(8).hex()}").symlink_to(victim)
    with pytest.raises(ManifestError, match="File exists"):
        write_private(directory / "file", b"new")
    assert victim.read_bytes() == b"precious"


def test_bound_on_the_size_is_exact(tmp_path: Path) -> None:
    path = tmp_path / "file"
    path.write_bytes(b"12345")
    assert read_bounded(path, 5) == b"12345"
    with pytest.raises(ManifestError, match="larger than the 4 bytes"):
        read_bounded(path, 4)


def test_fifo_is_refused_without_waiting_for_a_writer(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "fifo")
    with pytest.raises(ManifestError, match="not a regular file"):
        read_bounded(tmp_path / "fifo", 10)


@pytest.mark.parametrize("name", ["absent", "directory", "loop", "below/file", "x" * 300])
def test_what_cannot_be_read_is_an_error_with_a_reason(tmp_path: Path, name: str) -> None:
    (tmp_path / "directory").mkdir()
    (tmp_path / "loop").symlink_to(tmp_path / "loop")
    with pytest.raises(ManifestError) as caught:
        read_bounded(tmp_path / name, 10)
    assert str(tmp_path / name) in caught.value.message
    assert caught.value.hint


def test_refused_directory_does_not_keep_a_descriptor_open(tmp_path: Path) -> None:
    before = len(os.listdir("/proc/self/fd"))
    for _ in range(5):
        with pytest.raises(ManifestError):
            read_bounded(tmp_path, 10)
    assert len(os.listdir("/proc/self/fd")) == before
