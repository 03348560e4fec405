from __future__ import annotations

import fcntl
import os
from pathlib import Path

import pytest

from graphguard.blackbox import directory
from graphguard.blackbox.directory import (
    default_directory,
    file_name,
    is_held,
    private_directory,
    remove_old,
)
from graphguard.errors import BlackBoxError


def test_rings_of_a_session_lie_with_its_runtime_files(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("XDG_RUNTIME_DIR", str(tmp_path))
    assert default_directory() == tmp_path / "graphguard"


@pytest.mark.parametrize("value", ["", "relative", "/absent/directory", "/proc/1/status"])
def test_without_a_session_they_lie_in_a_directory_of_the_user(
    value: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("XDG_RUNTIME_DIR", value)
    monkeypatch.setenv("TMPDIR", "/somewhere/else")
    assert default_directory() == Path(f"/tmp/graphguard-{os.geteuid()}")  # noqa: S108


def test_runtime_directory_of_somebody_else_is_not_used(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("XDG_RUNTIME_DIR", str(tmp_path))
    monkeypatch.setattr(os, "geteuid", lambda: os.getuid() + 1)
    assert default_directory() == Path(f"/tmp/graphguard-{os.getuid() + 1}")  # noqa: S108


def test_directory_of_somebody_else_is_refused(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(os, "geteuid", lambda: os.getuid() + 1)
    with (
        pytest.raises(BlackBoxError, match="belongs to user"),
        private_directory(tmp_path, follow_links=True),
    ):
        pass


def test_link_is_followed_only_where_it_was_named(tmp_path: Path) -> None:
    (tmp_path / "own").mkdir(mode=0o700)
    (tmp_path / "link").symlink_to(tmp_path / "own")
    with private_directory(tmp_path / "link", follow_links=True) as descriptor:
        assert os.fstat(descriptor).st_ino == (tmp_path / "own").stat().st_ino
    with (
        pytest.raises(BlackBoxError, match="cannot open"),
        private_directory(tmp_path / "link", follow_links=False),
    ):
        pass


def removed(path: Path, kept: int) -> None:
    with private_directory(path, follow_links=True) as descriptor:
        remove_old(descriptor, kept)


def test_only_the_newest_rings_of_ended_processes_stay(tmp_path: Path) -> None:
    for age in range(6):
        ring = tmp_path / file_name(0, 1000 + age)
        ring.touch()
        os.utime(ring, ns=(0, 10**18 - age * 10**9))
    removed(tmp_path, 2)
    assert sorted(p.name for p in tmp_path.iterdir()) == [file_name(0, 1000), file_name(0, 1001)]


def test_rings_of_living_processes_and_other_files_stay(tmp_path: Path) -> None:
    living, gone = tmp_path / file_name(0, 1, 2), tmp_path / file_name(1, 2)
    others = [tmp_path / "manifest.rank0.json", tmp_path / "blackbox.rank0.1.ring.copy"]
    link = tmp_path / file_name(2, 3)
    for path in (living, gone, *others):
        path.touch()
    link.symlink_to(others[0])
    with living.open("rb") as held:
        assert directory.hold(held.fileno())
        removed(tmp_path, 0)
        assert sorted(tmp_path.iterdir()) == sorted([living, link, *others])
    removed(tmp_path, 0)
    assert not living.exists()


def test_looking_whether_a_ring_is_held_does_not_hold_it(tmp_path: Path) -> None:
    path = tmp_path / "ring"
    path.touch()
    with path.open("rb") as looked, path.open("rb") as held:
        assert is_held(looked.fileno()) is False
        assert directory.hold(held.fileno())
        assert is_held(looked.fileno()) is True
        assert not directory.hold(looked.fileno())


def test_file_system_without_locks_gives_no_answer(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuse(_descriptor: int, _operation: int) -> None:
        raise OSError(37, "No locks available")

    path = tmp_path / "ring"
    path.touch()
    monkeypatch.setattr(fcntl, "flock", refuse)
    with path.open("rb") as file:
        assert is_held(file.fileno()) is None
        assert directory.hold(file.fileno()) is False
