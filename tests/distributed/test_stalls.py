"""Stalls of real ranks, with gloo: what the examiner says, when, and what it leaves."""

from __future__ import annotations

import json
import os
import re
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import suppress
from pathlib import Path

import pytest

LIMIT = 1.0
"""Seconds after which the watchdog of the tests has something examined."""

START_SECONDS = 60.0
TELL_SECONDS = 30.0
"""How long a test waits for a line. A loaded machine takes its time to start a process."""

STALL = re.compile(
    r"graphguard: STALL \[([\w-]+)\] (?!over|now)(.*?) since .* \(([\d.]+) s\): (.*)"
)
OVER = re.compile(r"graphguard: STALL \[([\w-]+)\] over: (.*)")
SLOW = re.compile(r"graphguard: INFO slow, no stall: (.*)")
WAS_SLOW = re.compile(r"graphguard: INFO was slow: ([\d.]+) s")


class Forker:
    """The process that has torch in memory, and becomes the ranks."""

    def __init__(self) -> None:
        self._process = subprocess.Popen(
            [sys.executable, "-m", "tests.distributed.stall_ranks"],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            cwd=Path(__file__).parents[2],
        )

    def start(self, folder: Path, ranks: int, environment: dict[str, str]) -> list[int]:
        request = {"folder": str(folder), "ranks": ranks, "environment": environment}
        assert self._process.stdin is not None
        assert self._process.stdout is not None
        self._process.stdin.write(json.dumps(request).encode() + b"\n")
        self._process.stdin.flush()
        pids: list[int] = json.loads(self._process.stdout.readline())
        return pids

    def end(self) -> None:
        assert self._process.stdin is not None
        assert self._process.stdout is not None
        self._process.stdin.close()
        self._process.wait(30)
        self._process.stdout.close()


class Job:
    """Two ranks of ``stall_programs``, and what they and their examiner write."""

    def __init__(
        self, forker: Forker, folder: Path, fault: str, ranks: int, environment: dict[str, str]
    ) -> None:
        self.folder = folder
        self.boxes = folder / "boxes"
        given = {
            "GRAPHGUARD_DIR": str(self.boxes),
            "GRAPHGUARD_RING_ENTRIES": "1024",
            "GRAPHGUARD_STALL_SECONDS": str(LIMIT),
            "STALL_FAULT": fault,
            **environment,
        }
        self.pids = forker.start(folder, ranks, given)

    @property
    def log(self) -> str:
        """What all ranks have written, and the examiner, which writes where one of them does."""
        texts = sorted(self.folder.glob("stderr.*"))
        return "".join(path.read_text(errors="replace") for path in texts)

    def line(self, pattern: re.Pattern[str], seconds: float = TELL_SECONDS) -> re.Match[str]:
        """Wait for a line."""
        until = time.monotonic() + seconds
        while True:
            if found := pattern.search(self.log):
                return found
            assert time.monotonic() < until, f"no {pattern.pattern} in:\n{self.log}"
            time.sleep(0.05)

    def serve(self) -> None:
        """Wait until the ranks are in their steps."""
        until = time.monotonic() + START_SECONDS
        while len(list(self.boxes.glob("manifest.rank*.json"))) < len(self.pids):
            assert time.monotonic() < until, self.log
            assert not self.codes(), self.log
            time.sleep(0.05)

    def codes(self) -> list[int]:
        """Return what those ranks ended with that have ended."""
        return [int(path.read_text() or 0) for path in sorted(self.folder.glob("code.*"))]

    def ended(self, seconds: float = START_SECONDS) -> list[int]:
        """Wait until all ranks have ended."""
        until = time.monotonic() + seconds
        while len(codes := self.codes()) < len(self.pids):
            assert time.monotonic() < until, self.log
            time.sleep(0.05)
        return codes

    def bundles(self) -> list[Path]:
        return [path for path in self.boxes.glob("stall-*") if path.is_dir()]

    def incidents(self) -> list[Path]:
        return list(self.boxes.glob("stall-*.incident.json"))

    def end(self) -> None:
        """End the ranks that are left, and wait for the examiner, which ends when they have."""
        for rank, pid in enumerate(self.pids):
            if not (self.folder / f"code.{rank}").exists():
                with suppress(ProcessLookupError):
                    os.kill(pid, signal.SIGKILL)
        self.ended()
        until = time.monotonic() + 15
        while left := _examiners(self.boxes):
            assert time.monotonic() < until, left
            time.sleep(0.05)


Start = Callable[..., Job]


@pytest.fixture(scope="module")
def forker() -> Iterator[Forker]:
    forker = Forker()
    yield forker
    forker.end()


@pytest.fixture
def job(tmp_path: Path, forker: Forker) -> Iterator[Start]:
    started: list[Job] = []

    def start(fault: str, ranks: int = 2, **environment: str) -> Job:
        started.append(Job(forker, tmp_path, fault, ranks, environment))
        return started[-1]

    yield start
    for each in started:
        each.end()


def _examiners(boxes: Path) -> list[int]:
    found = []
    for entry in Path("/proc").iterdir():
        try:
            command = (entry / "cmdline").read_bytes() if entry.name.isdigit() else b""
        except OSError:
            continue
        if b"graphguard.watch.examining.examiner" in command and str(boxes).encode() in command:
            found.append(int(entry.name))
    return found


@pytest.fixture(scope="module")
def spin_library(tmp_path_factory: pytest.TempPathFactory) -> str:
    compiler = shutil.which("cc") or shutil.which("gcc")
    if compiler is None:
        pytest.skip("there is no C compiler")
    folder = tmp_path_factory.mktemp("spin")
    source = folder / "spin.c"
    source.write_text(
        "#include <time.h>\n"
        "void spin(double s) { time_t end = time(0) + (time_t)s; while (time(0) < end) {} }\n"
    )
    library = folder / "libspin.so"
    subprocess.run([compiler, "-shared", "-fPIC", "-o", library, source], check=True, timeout=60)
    return str(library)


def test_a_rank_that_loops_in_python_is_named_with_its_place(job: Start) -> None:
    running = job("spin")
    told = running.line(STALL, START_SECONDS)
    assert told[1] == "host-stuck"
    assert told[2].startswith("rank 1 in step 4 of")
    assert float(told[3]) < LIMIT + 5
    assert "spin() stall_programs.py" in told[4]
    assert "rank 0 waits in the eager run of target 5x3" in told[4]


def test_a_rank_that_loops_in_c_with_the_gil_held_is_named(job: Start, spin_library: str) -> None:
    told = job("spin_in_c", STALL_LIBRARY=spin_library).line(STALL, START_SECONDS)
    assert (told[1], told[2][:6]) == ("host-stuck", "rank 1")
    assert "spin" in told[4]


def test_a_rank_that_polls_for_what_never_comes_is_named(job: Start) -> None:
    told = job("poll").line(STALL, START_SECONDS)
    assert (told[1], told[2][:6]) == ("host-stuck", "rank 1")
    assert "poll() stall_programs.py" in told[4]


def test_a_rank_that_is_stuck_between_two_steps_has_not_launched(job: Start) -> None:
    told = job("spin", STALL_BETWEEN="1").line(STALL, START_SECONDS)
    assert (told[1], told[2][:6]) == ("host-stuck", "rank 1")
    assert "has not launched step 4" in told[4]
    assert "spin() stall_programs.py" in told[4]


def test_a_collective_that_one_of_two_ranks_skips_is_told_and_nobody_blamed(
    job: Start,
) -> None:
    told = job("skip").line(STALL, START_SECONDS)
    assert told[1] == "ranks-diverged"
    assert told[2].startswith("rank 0 waiting")
    assert "rank 1 has finished step 4" in told[4]
    assert "which rank is wrong" in told[4]


def test_of_three_ranks_the_one_that_skips_is_named(job: Start) -> None:
    told = job("skip", 3).line(STALL, START_SECONDS)
    assert (told[1], told[2][:6]) == ("ranks-diverged", "rank 1")


def test_ranks_that_all_wait_in_the_same_are_not_told_apart(job: Start) -> None:
    told = job("receive_from_each_other").line(STALL, START_SECONDS)
    assert (told[1], told[2][:17]) == ("device", "ranks 0-1 waiting")
    assert "breadcrumbs" in told[4]


def test_an_error_that_a_rank_noted_is_named(job: Start) -> None:
    told = job("fail").line(STALL, START_SECONDS)
    assert (told[1], told[2][:6]) == ("worker-error", "rank 1")
    assert "ValueError: a test" in told[4]


def test_a_stopped_rank_is_named_and_its_recovery_told(job: Start) -> None:
    running = job("nothing", STALL_STEPS="100000000")
    running.serve()
    os.kill(running.pids[1], signal.SIGSTOP)
    told = running.line(STALL)
    assert (told[1], told[2][:6]) == ("stopped", "rank 1")
    os.kill(running.pids[1], signal.SIGCONT)
    over = running.line(OVER)
    assert over[2].startswith("recovered after")
    assert len(STALL.findall(running.log)) == 1


def test_a_stopped_rank_that_is_killed_then_is_one_incident(job: Start) -> None:
    running = job("nothing", STALL_STEPS="100000000", GRAPHGUARD_WHEN_STUCK="report")
    running.serve()
    os.kill(running.pids[1], signal.SIGSTOP)
    running.line(STALL)
    os.kill(running.pids[1], signal.SIGKILL)
    running.line(re.compile(r"STALL \[process-died\] now: the process of rank 1"))
    assert len(STALL.findall(running.log)) == 1


def test_a_pause_below_the_limit_is_no_stall(job: Start) -> None:
    running = job("nothing", STALL_STEPS="100000000", GRAPHGUARD_STALL_SECONDS="5")
    running.serve()
    os.kill(running.pids[1], signal.SIGSTOP)
    time.sleep(3)
    os.kill(running.pids[1], signal.SIGCONT)
    time.sleep(4)
    assert "graphguard: STALL" not in running.log


def test_a_step_that_says_that_it_is_slow_is_no_stall(job: Start) -> None:
    running = job("say_slow", STALL_FOR="4")
    told = running.line(SLOW, START_SECONDS)
    assert "rank 1" in told[1]
    assert "tuning" in told[1]
    running.line(WAS_SLOW)
    assert "STALL" not in running.log
    assert not running.bundles()


def test_one_long_sleep_is_slow_until_its_time_is_over(job: Start) -> None:
    running = job("sleep_once", GRAPHGUARD_SLOW_SECONDS="4")
    assert "sleeps for a time" in running.line(SLOW, START_SECONDS)[1]
    told = running.line(STALL)
    assert (told[1], told[2][:6]) == ("host-stuck", "rank 1")


def test_idle_ranks_are_no_stall(job: Start) -> None:
    running = job("sleep_once", STALL_STEPS="3", STALL_FOR="1")
    assert running.ended() == [0, 0]
    assert "STALL" not in running.log


def test_what_is_done_about_it(job: Start, tmp_path: Path) -> None:
    command = tmp_path / "told.py"
    command.write_text(
        "import json, os, pathlib\n"
        "told = {k: v for k, v in os.environ.items() if k.startswith('GRAPHGUARD_STALL_')}\n"
        f"pathlib.Path({str(tmp_path / 'told.json')!r}).write_text(json.dumps(told))\n"
    )
    running = job("spin", GRAPHGUARD_ON_STALL=f"signal:python3 '{command}'")
    running.line(re.compile("the command python3 ended with 0"), START_SECONDS)
    told = json.loads((tmp_path / "told.json").read_text())
    assert told["GRAPHGUARD_STALL_CLASS"] == "host-stuck"
    assert told["GRAPHGUARD_STALL_RANKS"] == "1"
    assert told["GRAPHGUARD_STALL_BUNDLE"] == str(running.bundles()[0])


def test_abort_ends_the_ranks_of_the_node(job: Start) -> None:
    running = job("spin", GRAPHGUARD_ON_STALL="abort")
    running.line(re.compile("ended 2 of 2 processes of this node by SIGABRT"), START_SECONDS)
    assert running.ended() == [-signal.SIGABRT, -signal.SIGABRT]


def test_a_second_examiner_goes_on_with_the_first_one_s_incident(job: Start) -> None:
    running = job("spin")
    running.line(STALL, START_SECONDS)
    [first] = _examiners(running.boxes)
    until = time.monotonic() + 20
    while not any('"acted":true' in path.read_text() for path in running.incidents()):
        assert time.monotonic() < until
        time.sleep(0.1)
    os.kill(first, signal.SIGKILL)
    until = time.monotonic() + 60
    while _examiners(running.boxes) in ([], [first]):
        assert time.monotonic() < until, running.log
        time.sleep(0.2)
    time.sleep(3)
    assert len(running.bundles()) == 1
    assert len(STALL.findall(running.log)) == 1
