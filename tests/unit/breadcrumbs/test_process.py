"""The file of a process: where it lies, who may read it, and what happens if there can be none."""

from __future__ import annotations

import os
import stat
import subprocess
import sys
from pathlib import Path

import pytest

from graphguard.breadcrumbs.files import file_name, is_crumb_name, remove_old
from graphguard.breadcrumbs.process import open_breadcrumbs
from graphguard.errors import BlackBoxError


def test_a_file_is_its_owners_alone_and_never_one_that_is_there(tmp_path: Path) -> None:
    first, second = (open_breadcrumbs(tmp_path / "new") for _ in range(2))
    assert first.path != second.path
    assert stat.S_IMODE(first.path.stat().st_mode) == 0o600
    assert stat.S_IMODE(first.path.parent.stat().st_mode) == 0o700
    assert is_crumb_name(first.path.name)
    assert is_crumb_name(second.path.name)


def test_a_link_in_its_place_is_not_followed(tmp_path: Path) -> None:
    victim = tmp_path / "victim"
    victim.write_text("mine")
    (tmp_path / file_name(0, os.getpid())).symlink_to(victim)
    crumbs = open_breadcrumbs(tmp_path)
    assert crumbs.path.name == file_name(0, os.getpid(), 1)
    assert victim.read_text() == "mine"


def test_a_directory_that_others_may_write_to_is_refused(tmp_path: Path) -> None:
    shared = tmp_path / "shared"
    shared.mkdir()
    shared.chmod(0o777)
    with pytest.raises(BlackBoxError, match="others could replace"):
        open_breadcrumbs(shared)


def test_a_file_that_cannot_be_filled_is_not_left_behind(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def full(*_: object) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(os, "posix_fallocate", full)
    with pytest.raises(BlackBoxError, match="No space left"):
        open_breadcrumbs(tmp_path)
    assert list(tmp_path.iterdir()) == []


_PROGRAM = """
from graphguard.breadcrumbs.process import process_breadcrumbs, wanted
print(wanted(), process_breadcrumbs() is process_breadcrumbs(), process_breadcrumbs() is None)
"""


def _run(**environment: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-c", _PROGRAM],
        env=os.environ | environment,
        capture_output=True,
        text=True,
        timeout=60,
        check=True,
    )


def test_a_process_has_one_file_beside_its_black_box(tmp_path: Path) -> None:
    done = _run(GRAPHGUARD_BREADCRUMBS="1", GRAPHGUARD_DIR=str(tmp_path), RANK="2", WORLD_SIZE="4")
    assert done.stdout.split() == ["True", "True", "False"]
    (path,) = tmp_path.iterdir()
    assert path.match("breadcrumbs.rank2.*.crumbs")


def test_without_a_place_for_it_a_process_goes_on_and_says_so_once(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    done = _run(GRAPHGUARD_BREADCRUMBS="1", GRAPHGUARD_DIR=str(tmp_path / "file"))
    assert done.stdout.split() == ["True", "True", "True"]
    assert done.stderr.count("breadcrumbs are missing") == 1


def test_what_the_dead_left_goes_when_there_is_too_much_of_it(tmp_path: Path) -> None:
    living = open_breadcrumbs(tmp_path)
    for number in range(5):
        path = tmp_path / file_name(0, 10_000 + number)
        path.touch()
        os.utime(path, ns=(number, number))
    (tmp_path / "blackbox.rank0.1.ring").touch()
    remove_old(tmp_path, 2)
    assert {path.name for path in tmp_path.iterdir()} == {
        living.path.name,
        file_name(0, 10_003),
        file_name(0, 10_004),
        "blackbox.rank0.1.ring",
    }
