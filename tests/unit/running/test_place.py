from __future__ import annotations

from pathlib import Path

import pytest

from graphguard import manifest
from graphguard.errors import CommandError
from graphguard.manifest import Manifest
from graphguard.running.place import default_name, prepare


def test_the_directory_is_private_and_its_path_absolute(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)

    directory = prepare(Path("a/run"))

    assert directory == tmp_path / "a" / "run"
    assert directory.stat().st_mode & 0o777 == 0o700
    assert (directory / "processes").stat().st_mode & 0o777 == 0o700


def test_a_directory_in_which_nothing_was_recorded_can_be_used_again(tmp_path: Path) -> None:
    assert prepare(prepare(tmp_path / "run")) == tmp_path / "run"


@pytest.mark.parametrize("name", ["blackbox.rank0.12.ring", "manifest.rank0.json", "processes/p"])
def test_what_another_run_has_left_is_not_mixed_with_this_one(name: str, tmp_path: Path) -> None:
    prepare(tmp_path / "run")
    manifest.write(Manifest(0, 1, ()), tmp_path / "run").rename(tmp_path / "run" / name)

    with pytest.raises(CommandError, match="another run"):
        prepare(tmp_path / "run")


def test_a_directory_that_others_may_write_to_is_refused(tmp_path: Path) -> None:
    shared = tmp_path / "shared"
    shared.mkdir()
    shared.chmod(0o777)
    with pytest.raises(CommandError):
        prepare(shared)


def test_a_file_in_its_place_is_refused(tmp_path: Path) -> None:
    (tmp_path / "run").touch()
    with pytest.raises(CommandError):
        prepare(tmp_path / "run")


def test_the_default_name_is_that_of_this_process() -> None:
    assert default_name().startswith("graphguard-20")
