"""``graphguard watch`` on real processes: what it prints, how it ends, and its exit code."""

from __future__ import annotations

import fcntl
import json
import os
import pty
import select
import signal
import struct
import subprocess
import sys
import termios
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest

from graphguard.commands import main

PATIENCE = 60.0

RANK = """
import sys
from pathlib import Path
from graphguard.blackbox.events import Event
from graphguard.blackbox.writer import open_box
box = open_box(Path(sys.argv[1]), 256)
for step in range(1, 4):
    box.record(Event.EAGER_BEGIN, role="target", group="tp", step=step)
    if step < 3:
        box.record(Event.EAGER_END, role="target", group="tp", step=step)
print(flush=True)
if sys.stdin.readline():
    box.record(Event.EAGER_END, role="target", group="tp", step=step)
    print(flush=True)
    sys.stdin.read()
box.close()
"""
PARENT = """
import subprocess, sys
with subprocess.Popen([sys.executable, *sys.argv[1:]]) as child:
    pass
"""

JOB = """
import json, os, subprocess, sys
code, directory, world = sys.argv[1], sys.argv[2], int(sys.argv[3])
ranks = []
for rank in range(world):
    environment = {**os.environ, "RANK": str(rank), "WORLD_SIZE": str(world)}
    ranks.append(subprocess.Popen(
        [sys.executable, "-c", code, directory], env=environment,
        stdin=subprocess.PIPE, stdout=subprocess.PIPE))
    ranks[-1].stdout.readline()
print(json.dumps([rank.pid for rank in ranks]), flush=True)
sys.stdin.read()
for rank in ranks:
    rank.communicate()
"""


class RankProcess:
    """A rank in step 3. It ends the step and its job when it is told to."""

    def __init__(self, directory: Path, rank: int, world: int, *before: str) -> None:
        command = [sys.executable, *before, "-c", RANK, str(directory)]
        self.process = subprocess.Popen(
            command,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
            start_new_session=True,
            env={**os.environ, "RANK": str(rank), "WORLD_SIZE": str(world)},
        )
        assert self.process.stdout is not None
        self.process.stdout.readline()

    @property
    def pid(self) -> int:
        return self.process.pid

    def end_step(self) -> None:
        assert self.process.stdin is not None
        assert self.process.stdout is not None
        self.process.stdin.write("\n")
        self.process.stdin.flush()
        self.process.stdout.readline()

    def close(self) -> None:
        self.process.communicate(timeout=PATIENCE)

    def kill(self) -> None:
        if self.process.poll() is None:
            os.killpg(self.pid, signal.SIGKILL)
            self.process.wait(PATIENCE)
        assert self.process.stdin is not None
        assert self.process.stdout is not None
        self.process.stdin.close()
        self.process.stdout.close()


@pytest.fixture
def directory(tmp_path: Path) -> Path:
    path = tmp_path / "run"
    path.mkdir(0o700)
    return path


@pytest.fixture
def ranks(directory: Path) -> Iterator[list[RankProcess]]:
    processes = [RankProcess(directory, rank, 2) for rank in range(2)]
    yield processes
    for each in processes:
        each.kill()


@contextmanager
def watching(*arguments: str, stdout: int = subprocess.PIPE) -> Iterator[subprocess.Popen[str]]:
    command = [sys.executable, "-m", "graphguard", "watch", *arguments, "--interval", "0.1"]
    environment = {**os.environ, "COLUMNS": "160", "TERM": "xterm"}
    if stdout != subprocess.PIPE:
        del environment["COLUMNS"]
    with subprocess.Popen(
        command, stdin=stdout, stdout=stdout, stderr=subprocess.PIPE, text=True, env=environment
    ) as process:
        try:
            yield process
        finally:
            process.kill()


def look(capsys: pytest.CaptureFixture[str], *arguments: object) -> tuple[int, dict[str, Any]]:
    code = main(["watch", *map(str, arguments), "--once", "--json"])
    found: dict[str, Any] = json.loads(capsys.readouterr().out)
    return code, found


def test_one_look_at_ranks_in_a_step(
    ranks: list[RankProcess], directory: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    code, found = look(capsys, directory)

    assert code == 0
    assert [each["pid"] for each in found["ranks"]] == [each.pid for each in ranks]
    assert [each["state"] for each in found["ranks"]] == ["busy", "busy"]
    assert [each["step"] for each in found["ranks"]] == [3, 3]
    assert [each["doing"] for each in found["ranks"]] == ["eager run of target"] * 2

    ranks[0].end_step()
    assert [each["state"] for each in look(capsys, directory)[1]["ranks"]] == ["idle", "busy"]


def test_one_look_as_text(
    ranks: list[RankProcess],
    directory: Path,
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setenv("COLUMNS", "160")
    assert main(["watch", str(directory), "--once"]) == 0

    title, head, first, second, *_ = capsys.readouterr().out.splitlines()
    assert title.endswith(f"2 of 2 ranks: 2 busy  ({directory})")
    columns = "rank pid host state group step doing age watchdog"
    assert " ".join(head.split()) == columns
    for number, line in enumerate((first, second)):
        host = os.uname().nodename
        cells = [str(number), str(ranks[number].pid), host, "busy", "tp", "3"]
        assert line.split()[:10] == [*cells, "eager", "run", "of", "target"]


@pytest.mark.parametrize(
    ("number", "state"), [(signal.SIGKILL, "died"), (signal.SIGSTOP, "stopped")]
)
def test_a_rank_that_is_gone_or_stopped_is_found(
    number: int,
    state: str,
    ranks: list[RankProcess],
    directory: Path,
    capsys: pytest.CaptureFixture[str],
) -> None:
    os.kill(ranks[1].pid, number)
    deadline = time.monotonic() + PATIENCE
    while (found := look(capsys, directory))[0] != 1:
        assert time.monotonic() < deadline, found

    assert [each["state"] for each in found[1]["ranks"]] == ["busy", state]
    assert found[1]["trouble"]


def test_ranks_that_closed_are_no_trouble(
    ranks: list[RankProcess], directory: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    for rank in ranks:
        rank.close()
    code, found = look(capsys, directory)

    assert code == 0
    assert found["ended"]
    assert [each["state"] for each in found["ranks"]] == ["ended", "ended"]


def test_a_stall_that_is_examined_is_found(
    ranks: list[RankProcess], directory: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    bundle = directory / "stall-20261121T191410Z-host-0123abcd"
    bundle.mkdir(0o700)
    (bundle / "verdict.json").write_text('{"stall_class": "device", "sentence": "it hangs"}')
    assert look(capsys, directory)[0] == 0

    lock = os.open(directory / "stall-0123abcd.lock", os.O_RDWR | os.O_CREAT, 0o600)
    try:
        fcntl.flock(lock, fcntl.LOCK_EX)
        code, found = look(capsys, directory)
    finally:
        os.close(lock)
    assert code == 1
    assert found["stalls"][0]["verdict"]["sentence"] == "it hangs"


@contextmanager
def started_job(directory: Path, world: int) -> Iterator[list[int]]:
    """Ranks with a parent of their own, by their ids."""
    with subprocess.Popen(
        [sys.executable, "-c", JOB, RANK, str(directory), str(world)],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
    ) as parent:
        assert parent.stdout is not None
        yield json.loads(parent.stdout.readline())
        parent.communicate(timeout=PATIENCE)


def test_a_process_leads_to_all_ranks_of_its_job(
    directory: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    # Beside it another job of as many ranks, and one of more.
    with (
        started_job(directory, 2) as one,
        started_job(directory, 2) as other,
        started_job(directory, 3) as third,
    ):
        for job in (one, other, third):
            code, found = look(capsys, job[1])
            assert code == 0
            assert [each["pid"] for each in found["ranks"]] == job
            assert found["where"] == str(directory)


def test_ranks_that_ended_before_a_job_began_are_not_of_it(
    directory: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    with started_job(directory, 3) as earlier:
        pass
    with started_job(directory, 3) as job:
        # Rank 2 has died since, and is shown.
        os.kill(job[2], signal.SIGKILL)
        found = look(capsys, job[0])[1]
        assert [each["pid"] for each in found["ranks"]] == job
        for file in directory.glob("blackbox.rank2.*"):
            if str(job[2]) in file.name:
                file.unlink()
        found = look(capsys, job[0])[1]
        assert [each["pid"] for each in found["ranks"]] == job[:2]
    assert earlier != job


def test_a_process_leads_to_the_ranks_that_it_has_started(
    directory: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    rank = RankProcess(directory, 0, 1, "-c", PARENT)
    try:
        code, found = look(capsys, rank.pid)
        assert code == 0
        assert [each["rank"] for each in found["ranks"]] == [0]
        assert found["ranks"][0]["pid"] != rank.pid
    finally:
        rank.kill()


@pytest.mark.parametrize(
    ("target", "words"),
    [
        ("4194303", "there is no process 4194303"),
        ("nowhere", "nowhere is not there"),
        (".", "no black box could be read in ."),
    ],
)
def test_what_cannot_be_watched_is_an_error(
    target: str,
    words: str,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.chdir(tmp_path)
    assert main(["watch", target, "--once"]) == 2
    assert words in capsys.readouterr().err


def test_a_process_without_a_black_box_is_an_error(capsys: pytest.CaptureFixture[str]) -> None:
    with subprocess.Popen(["sleep", "600"]) as process:
        assert main(["watch", str(process.pid), "--once"]) == 2
        process.kill()
    told = f"process {process.pid} has no black box, nor has a process that it has started"
    assert told in capsys.readouterr().err


def test_without_a_target_it_is_the_directory_of_the_environment(
    ranks: list[RankProcess],
    directory: Path,
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setenv("GRAPHGUARD_DIR", str(directory))

    assert len(look(capsys)[1]["ranks"]) == len(ranks)


@pytest.mark.parametrize("interval", ["0", "-1", "nan", "x", "1e9"])
def test_an_interval_that_cannot_be_meant_is_refused(interval: str) -> None:
    with pytest.raises(SystemExit) as ended:
        main(["watch", ".", "--interval", interval])
    assert ended.value.code == 2


def test_json_is_a_line_for_each_look_until_the_job_ends(
    ranks: list[RankProcess], directory: Path
) -> None:
    with watching(str(directory), "--json") as process:
        assert process.stdout is not None
        first = [json.loads(process.stdout.readline()) for _ in range(3)]
        for rank in ranks:
            rank.end_step()
            rank.close()
        rest = [json.loads(line) for line in process.stdout]
        assert process.wait(PATIENCE) == 0

    assert not any(each["ended"] for each in first)
    assert rest[-1]["ended"]
    times = [each["time_ns"] for each in (*first, *rest)]
    assert times == sorted(times)


def test_ranks_that_come_later_are_shown(directory: Path) -> None:
    with watching(str(directory), "--json") as process:
        assert process.stdout is not None
        assert json.loads(process.stdout.readline())["ranks"] == []
        rank = RankProcess(directory, 0, 1)
        try:
            while not json.loads(process.stdout.readline())["ranks"]:
                pass
        finally:
            rank.kill()
        *_, last = process.stdout
        assert json.loads(last)["ranks"][0]["state"] == "died"
        assert process.wait(PATIENCE) == 1


@pytest.mark.usefixtures("ranks")
def test_an_interrupt_ends_it_without_a_word(directory: Path) -> None:
    with watching(str(directory)) as process:
        assert process.stdout is not None
        assert process.stderr is not None
        process.stdout.readline()
        process.send_signal(signal.SIGINT)
        process.stdout.read()
        assert process.stderr.read() == ""
        assert process.wait(PATIENCE) == 0


def read_until(terminal: int, words: bytes, seen: bytes = b"") -> bytes:
    deadline = time.monotonic() + PATIENCE
    while words not in seen:
        assert time.monotonic() < deadline, seen
        if select.select([terminal], [], [], 1.0)[0]:
            seen += os.read(terminal, 65_536)
    return seen


def resize(terminal: int, rows: int, columns: int) -> None:
    fcntl.ioctl(terminal, termios.TIOCSWINSZ, struct.pack("HHHH", rows, columns, 0, 0))


def test_on_a_terminal_it_takes_the_screen_and_gives_it_back(
    ranks: list[RankProcess], directory: Path
) -> None:
    pytest.importorskip("rich")
    terminal, other_end = pty.openpty()
    try:
        resize(terminal, 20, 160)
        with watching(str(directory), stdout=other_end) as process:
            seen = read_until(terminal, b"watchdog")
            assert b"\x1b[?1049h" in seen
            # A narrower terminal has no room for that column.
            resize(terminal, 8, 40)
            while b"watchdog" in (seen := read_until(terminal, b"2 busy")):
                pass
            os.kill(ranks[1].pid, signal.SIGSTOP)
            read_until(terminal, b"1 stopped, ")
            process.send_signal(signal.SIGINT)
            seen = read_until(terminal, b"\x1b[?1049l")
            # What was seen last stays, below what was there before.
            read_until(terminal, b"stopped", seen.rpartition(b"\x1b[?1049l")[2])
            assert process.wait(PATIENCE) == 1
            assert process.stderr is not None
            assert process.stderr.read() == ""
    finally:
        os.close(terminal)
        os.close(other_end)
