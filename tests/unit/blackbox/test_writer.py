from __future__ import annotations

import logging
import os
import resource
import signal
import stat
from collections.abc import Iterator
from pathlib import Path

import pytest

from graphguard import environment
from graphguard.batch import BatchDescriptor
from graphguard.blackbox import writer
from graphguard.blackbox.events import DivergenceKind, Event, Flag
from graphguard.blackbox.reading import read
from graphguard.blackbox.writer import open_box, process_box
from graphguard.errors import BlackBoxError
from graphguard.verdict import Action, Reason, Verdict
from tests.unit.blackbox.processes import run, started

ROOM = 4096 + 128 * 128


@pytest.fixture
def asked_for(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """The black box of this process, as if nobody had asked for it yet."""
    monkeypatch.setenv("GRAPHGUARD_RING_ENTRIES", "64")
    monkeypatch.setenv("GRAPHGUARD_DIR", str(tmp_path / "run"))
    monkeypatch.setattr(writer, "_process", writer._ProcessBox())
    monkeypatch.setattr(writer, "at_exit", lambda _close: None)
    yield tmp_path / "run"
    if box := writer._process._box:
        box.disown()


def mode(path: Path) -> int:
    return stat.S_IMODE(path.stat().st_mode)


def open_descriptors() -> int:
    return len(os.listdir("/proc/self/fd"))


def test_file_and_directory_are_private(tmp_path: Path) -> None:
    before = os.umask(0)
    try:
        box = open_box(tmp_path / "new" / "run", 64)
    finally:
        os.umask(before)
    assert box.path == tmp_path / "new" / "run" / f"blackbox.rank0.{os.getpid()}.ring"
    assert mode(box.path) == 0o600
    assert mode(box.path.parent) == 0o700


def test_file_has_its_whole_size_on_the_disk_at_once(tmp_path: Path) -> None:
    box = open_box(tmp_path / "run", 1024)
    status = box.path.stat()
    assert status.st_size == ROOM + 1024 * 64
    assert status.st_blocks * 512 >= status.st_size


@pytest.mark.parametrize(("entries", "kept"), [(1, 1), (3, 4), (64, 64), (65, 128)])
def test_number_of_records_is_rounded_up(tmp_path: Path, entries: int, kept: int) -> None:
    assert open_box(tmp_path / "run", entries).path.stat().st_size == ROOM + kept * 64


@pytest.mark.parametrize("entries", [0, -1, 2**24 + 1])
def test_impossible_number_of_records_is_refused(tmp_path: Path, entries: int) -> None:
    with pytest.raises(BlackBoxError, match="cannot keep") as caught:
        open_box(tmp_path / "run", entries)
    assert "between 1 and 16777216" in caught.value.hint
    assert not (tmp_path / "run").exists()


def test_record_comes_back_as_it_was_written(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("RANK", "3")
    monkeypatch.setenv("WORLD_SIZE", "8")
    box = open_box(tmp_path / "run", 64)
    box.record(
        Event.DIVERGENCE,
        role="drafter",
        group="tp",
        step=17,
        digest=2**64 - 1,
        batch=BatchDescriptor.parse("5x20/37:mixed"),
        verdict=Verdict(Action.PAD, Reason.PADDED),
        peer=2,
        flags=Flag.ADOPTED | Flag.ENFORCE,
        detail=DivergenceKind.ADOPTED,
    )
    seen = read(box.path)
    assert (seen.rank, seen.world_size, seen.pid) == (3, 8, os.getpid())
    assert seen.host == os.uname().nodename
    (record,) = seen.records
    assert (record.event_name, record.role, record.group) == ("divergence", "drafter", "tp")
    assert (record.step, record.digest, record.batch) == (17, 2**64 - 1, "5x20/37:mixed")
    assert (record.verdict, record.peer_rank, record.divergence) == ("pad (padded)", 2, "adopted")
    assert record.flag_names == ("adopted", "enforce")
    assert seen.started_ns <= record.time_ns < seen.started_ns + 60 * 10**9


def test_what_is_not_given_is_not_there(tmp_path: Path) -> None:
    box = open_box(tmp_path / "run", 64)
    box.record(Event.SEALED)
    (record,) = read(box.path).records
    assert (record.role, record.group, record.step, record.digest) == ("", "", 0, 0)
    assert (record.batch, record.verdict, record.peer_rank, record.flag_names) == ("", "", None, ())


def test_note_is_a_text(tmp_path: Path) -> None:
    box = open_box(tmp_path / "run", 64)
    box.note("warm-up ended", group="tp", detail=3)
    (record,) = read(box.path).records
    assert (record.note, record.role, record.group, record.detail) == ("warm-up ended", "", "tp", 3)


def test_two_boxes_of_one_process_have_files_of_their_own(tmp_path: Path) -> None:
    first, second = open_box(tmp_path / "run", 64), open_box(tmp_path / "run", 64)
    first.note("first")
    second.note("second")
    assert [r.note for r in read(first.path).records] == ["first"]
    assert [r.note for r in read(second.path).records] == ["second"]


def test_link_planted_at_the_name_is_not_followed(tmp_path: Path) -> None:
    victim = tmp_path / "victim"
    victim.write_bytes(b"precious")
    directory = tmp_path / "run"
    directory.mkdir(mode=0o700)
    (directory / f"blackbox.rank0.{os.getpid()}.ring").symlink_to(victim)
    assert open_box(directory, 64).path.name == f"blackbox.rank0.{os.getpid()}.1.ring"
    assert victim.read_bytes() == b"precious"


@pytest.mark.parametrize("permissions", [0o777, 0o770, 0o702])
def test_directory_that_others_may_write_to_is_refused(tmp_path: Path, permissions: int) -> None:
    shared = tmp_path / "shared"
    shared.mkdir()
    shared.chmod(permissions)
    before = open_descriptors()
    with pytest.raises(BlackBoxError, match="others could replace") as caught:
        open_box(shared, 64)
    assert "chmod 700" in caught.value.hint
    assert list(shared.iterdir()) == []
    assert open_descriptors() == before


def test_file_that_cannot_have_its_size_is_an_error_and_leaves_nothing(tmp_path: Path) -> None:
    before = open_descriptors()
    limits = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (ROOM, limits[1]))
    try:
        with pytest.raises(BlackBoxError, match="File too large") as caught:
            open_box(tmp_path / "run", 64)
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, limits)
    assert "GRAPHGUARD_RING_ENTRIES=0" in caught.value.hint
    assert list((tmp_path / "run").iterdir()) == []
    assert open_descriptors() == before


def test_full_disk_is_an_error_when_the_box_is_opened(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def full(_descriptor: int, _offset: int, _length: int) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(os, "posix_fallocate", full)
    with pytest.raises(BlackBoxError, match="No space left on device") as caught:
        open_box(tmp_path / "run", 64)
    assert "with space in it" in caught.value.hint
    assert list((tmp_path / "run").iterdir()) == []


def test_directory_that_is_a_file_is_refused(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    with pytest.raises(BlackBoxError, match="cannot open a black box in"):
        open_box(tmp_path / "file", 64)


def test_rank_that_no_record_can_hold_is_refused(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("RANK", "9" * 20)
    with pytest.raises(BlackBoxError, match="does not fit"):
        open_box(tmp_path / "run", 64)


def test_close_is_written_once(tmp_path: Path) -> None:
    box = open_box(tmp_path / "run", 64)
    assert not read(box.path).closed
    box.close()
    box.close()
    assert [record.event for record in read(box.path).records] == [Event.CLOSED]
    assert read(box.path).closed


def test_process_has_one_box_where_the_environment_says(asked_for: Path) -> None:
    box = process_box()
    assert box is not None
    assert process_box() is box
    assert [box.path] == list(asked_for.iterdir())


@pytest.mark.parametrize(("value", "entries"), [(None, 16384), ("", 16384), ("100", 100), ("0", 0)])
def test_environment_says_how_many_records_are_kept(
    value: str | None, entries: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("GRAPHGUARD_RING_ENTRIES")
    if value is not None:
        monkeypatch.setenv("GRAPHGUARD_RING_ENTRIES", value)
    assert environment.ring_entries() == entries


def test_no_box_is_opened_where_none_is_wanted(
    asked_for: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("GRAPHGUARD_RING_ENTRIES", "0")
    assert process_box() is None
    assert not asked_for.exists()


@pytest.mark.parametrize(
    ("name", "value", "reason"),
    [
        ("GRAPHGUARD_RING_ENTRIES", "many", "GRAPHGUARD_RING_ENTRIES is 'many'"),
        ("GRAPHGUARD_DIR", "/proc/none", "cannot open a black box in /proc/none"),
        ("RANK", "9" * 20, "does not fit"),
    ],
)
@pytest.mark.usefixtures("asked_for")
def test_box_that_cannot_be_opened_is_one_warning(
    name: str,
    value: str,
    reason: str,
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
) -> None:
    monkeypatch.setenv(name, value)
    with caplog.at_level(logging.WARNING, logger="graphguard"):
        assert process_box() is None
        assert process_box() is None
    (told,) = caplog.messages
    assert told.startswith("this process has no black box: ")
    assert reason in told


def test_box_outlives_a_process_that_is_killed(tmp_path: Path) -> None:
    code = "box = process_box()\nfor n in range(20): box.note(f'{n}')\nsay('ready')\nwait()"
    with started(code, tmp_path / "run") as process:
        (path,) = (tmp_path / "run").iterdir()
        assert read(path).running is True
        process.send_signal(signal.SIGKILL)
        process.wait(60)
    box = read(path)
    assert [record.note for record in box.records] == [str(n) for n in range(20)]
    assert (box.running, box.closed, box.ended, box.damaged) == (False, False, True, 0)


def test_process_that_ends_says_so(tmp_path: Path) -> None:
    assert run("process_box().note('hello')", tmp_path / "run").returncode == 0
    (path,) = (tmp_path / "run").iterdir()
    assert [record.event_name for record in read(path).records] == ["note", "closed"]
    assert read(path).running is False


def test_forked_child_writes_into_a_box_of_its_own(tmp_path: Path) -> None:
    code = """
parents = process_box()
parents.note("parent")
if os.fork() == 0:
    parents.note("child into the parent's")
    parents.ring.mark(Event.NOTE)
    childs = process_box()
    assert childs is not parents
    childs.note("child")
    sys.exit(0)
os.wait()
parents.note("parent again")
"""
    ended = run(code, tmp_path / "run")
    assert (ended.returncode, ended.stderr) == (0, "")
    boxes = sorted((read(path) for path in (tmp_path / "run").iterdir()), key=lambda box: box.pid)
    told = [[record.note or record.event_name for record in box.records] for box in boxes]
    assert sorted(told) == [["child", "closed"], ["parent", "parent again", "closed"]]
    assert boxes[0].pid != boxes[1].pid


def test_forked_child_does_not_keep_the_box_of_its_dead_parent_running(tmp_path: Path) -> None:
    code = """
process_box().note("parent")
readable, writable = os.pipe()
if os.fork() == 0:
    os.write(writable, b".")
    wait()
    os._exit(0)
os.read(readable, 1)
say("forked")
os.kill(os.getpid(), 9)
"""
    with started(code, tmp_path / "run") as process:
        process.wait(60)
        (path,) = (tmp_path / "run").iterdir()
        assert read(path).running is False


@pytest.mark.parametrize("method", ["fork", "spawn"])
def test_child_of_multiprocessing_says_that_it_ends(tmp_path: Path, method: str) -> None:
    program = tmp_path / "program.py"
    program.write_text(
        "import multiprocessing\n"
        "from graphguard.blackbox.writer import process_box\n"
        "def work():\n"
        "    process_box().note('child')\n"
        "if __name__ == '__main__':\n"
        f"    child = multiprocessing.get_context({method!r}).Process(target=work)\n"
        "    child.start()\n"
        "    child.join(60)\n"
    )
    ended = run(f"import runpy; runpy.run_path({str(program)!r}, run_name='__main__')", tmp_path)
    assert (ended.returncode, ended.stderr) == (0, "")
    (path,) = tmp_path.glob("*.ring")
    assert [record.event_name for record in read(path).records] == ["note", "closed"]
