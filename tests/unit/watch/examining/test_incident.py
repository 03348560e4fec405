"""What one examiner leaves for another, and who examines."""

from __future__ import annotations

import fcntl
import json
import os
from pathlib import Path

import msgspec
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from graphguard.blackbox.writer import open_box
from graphguard.watch.evidence.bundle_contents import AFTERWARDS
from graphguard.watch.evidence.ledger_summary import LedgerUnreadable
from graphguard.watch.examining import incident as incidents
from graphguard.watch.examining.examined_job import Task
from graphguard.watch.examining.examiner import main, read_arguments, sole_examiner
from graphguard.watch.examining.incident import Incident, Stuck, still_stuck
from graphguard.watch.verdicts.stall import Suspect

SECOND = 1_000_000_000
STUCK = Stuck(1, 4242, 99, "replay", 41, 100 * SECOND, 106 * SECOND)
INCIDENT = Incident("job", "host-stuck", (1,), 1, True, "", (STUCK,))


@pytest.fixture
def directory(tmp_path: Path) -> Path:
    boxes = tmp_path / "boxes"
    boxes.mkdir(mode=0o700)
    return boxes


def test_an_incident_is_found_again_until_it_is_over(directory: Path) -> None:
    incidents.keep(directory, INCIDENT)
    assert incidents.kept(directory, "job") == INCIDENT
    assert incidents.kept(directory, "another") is None
    incidents.keep(directory, msgspec.structs.replace(INCIDENT, over=True))
    assert incidents.kept(directory, "job") is None


def test_its_file_is_private(directory: Path) -> None:
    incidents.keep(directory, INCIDENT)
    path = incidents.path_of(directory, "job")
    assert path is not None
    assert path.stat().st_mode & 0o777 == 0o600


@pytest.mark.parametrize(
    "content",
    [
        b"",
        b"{",
        b"[]",
        b'{"job":"job"}',
        b"\xff" * 10,
        b"{" * 100_000,
        msgspec.json.encode(INCIDENT) + b" " * 2_000_000,
    ],
)
def test_what_a_stranger_wrote_is_no_incident(directory: Path, content: bytes) -> None:
    path = incidents.path_of(directory, "job")
    assert path is not None
    path.write_bytes(content)
    assert incidents.kept(directory, "job") is None


def test_a_link_and_a_fifo_are_no_incident(directory: Path, tmp_path: Path) -> None:
    path = incidents.path_of(directory, "job")
    assert path is not None
    elsewhere = tmp_path / "elsewhere"
    elsewhere.write_bytes(msgspec.json.encode(INCIDENT))
    path.symlink_to(elsewhere)
    assert incidents.kept(directory, "job") is None
    path.unlink()
    os.mkfifo(path)
    assert incidents.kept(directory, "job") is None


@pytest.mark.parametrize("job", ["", ".", "..", "../x", "a/b", "a\0b", "x" * 200, ".hidden"])
def test_a_job_s_name_names_no_file_elsewhere(directory: Path, job: str) -> None:
    assert incidents.path_of(directory, job) is None
    incidents.keep(directory, msgspec.structs.replace(INCIDENT, job=job))
    assert list(directory.iterdir()) == []
    assert incidents.kept(directory, job) is None


@pytest.mark.parametrize(
    "bundle", ["../elsewhere", "stall-x/..", "/etc", "stall-20261121T181233Z-vm-job"]
)
def test_a_bundle_that_is_not_there_is_none(directory: Path, bundle: str) -> None:
    incidents.keep(directory, msgspec.structs.replace(INCIDENT, bundle=bundle))
    kept = incidents.kept(directory, "job")
    assert kept is not None
    assert kept.bundle == ""


def test_what_came_later_is_added_to_the_bundle_alone(directory: Path) -> None:
    name = "stall-20261121T181233Z-vm-job"
    incidents.append_later(directory, name, "recovered", seconds=3)
    assert list(directory.iterdir()) == []
    (directory / name).mkdir(mode=0o700)
    incidents.append_later(directory, name, "recovered", seconds=3)
    incidents.append_later(directory, name, "gone", odd=object())
    lines = (directory / name / AFTERWARDS).read_text().splitlines()
    assert [json.loads(line)["what"] for line in lines] == ["recovered", "gone"]


def test_an_activity_is_the_same_for_another_examiner() -> None:
    later = msgspec.structs.replace(STUCK, began_ns=101 * SECOND, looked_ns=160 * SECOND)
    assert still_stuck([STUCK], [later]) == (STUCK,)
    newer = msgspec.structs.replace(STUCK, began_ns=150 * SECOND, looked_ns=160 * SECOND)
    assert still_stuck([STUCK], [newer]) == ()
    reused = msgspec.structs.replace(STUCK, started_ticks=100)
    assert still_stuck([STUCK], [reused]) == ()


@settings(max_examples=100, deadline=None)
@given(st.binary(max_size=300))
def test_no_file_ends_an_examiner(content: bytes) -> None:
    import tempfile

    with tempfile.TemporaryDirectory() as folder:
        path = incidents.path_of(Path(folder), "job")
        assert path is not None
        path.write_bytes(content)
        assert incidents.kept(Path(folder), "job") is None


# ---- arguments, and who examines -----------------------------------------------------------------

_NEEDED = ("--directory", "/boxes", "--job", "abc", "--rank", "1", "--pid", "42")


def test_arguments() -> None:
    task = read_arguments(
        [
            *_NEEDED,
            *("--ring", "/boxes/blackbox.rank1.42.ring", "--lane", "3", "--watched-ms", "5100"),
            *("--lock-fd", "9", "--ledger", "10:4096:tp:0[0-1]:0=41,1=42"),
            *("--ledger", "11:4096:dp::0=41,4=0"),
        ]
    )
    assert (task.job, task.lock) == ("abc", 9)
    assert task.suspect == Suspect(1, 42, "step", 5_100_000_000)
    assert task.pids == frozenset({41, 42})
    assert task.members["tp:0[0-1]"] == {41, 42}


def test_arguments_that_cannot_be_meant(capfd: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(LedgerUnreadable):
        read_arguments([*_NEEDED, "--ledger", "x"])
    assert main([*_NEEDED, "--ledger", "\x1b[31m"]) == 2
    assert "\x1b" not in capfd.readouterr().err
    with pytest.raises(SystemExit):
        main(["--job", "abc"])


def test_nobody_is_examined_whose_activity_has_ended(
    directory: Path, capfd: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("RANK", "1")
    box = open_box(directory, 64)
    box.note("here")
    arguments = ["--directory", str(directory), "--job", "abc", "--rank", "1"]
    assert main([*arguments, "--pid", str(os.getpid())]) == 0
    assert capfd.readouterr().err == ""
    box.disown()


def test_ranks_that_share_only_a_directory_have_one_examiner(
    directory: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("RANK", "0")
    box = open_box(directory, 64)
    box.note("here")
    second = Task(directory, "7", Suspect(1, 7))
    taken = sole_examiner(second)
    assert taken is not None
    assert taken.job == str(os.getpid())
    # Now it holds the lock that the watchdog of the first rank would need, too.
    assert sole_examiner(second) is None
    with (directory / f"stall-{os.getpid()}.lock").open() as lock, pytest.raises(BlockingIOError):
        fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
    os.close(taken.lock)
    first = Task(directory, str(os.getpid()), Suspect(0, os.getpid()))
    assert sole_examiner(first) == first
    box.disown()
