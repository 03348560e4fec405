"""The examiner with real processes of a program that has neither torch nor a group of ranks."""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
import textwrap
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from graphguard.watch.examining import examination
from graphguard.watch.examining.examination import examine
from graphguard.watch.examining.examined_job import Looks, Task
from graphguard.watch.examining.examiner import main
from graphguard.watch.verdicts.stall import Suspect

PROGRAM = """
import os, sys
from graphguard.blackbox.pulse import ActivityKind
from graphguard.watch import activity
from graphguard.watch import watchdog

def spin():
    while True:
        pass

def wait():
    os.read(os.pipe()[0], 1)

if sys.argv[2] == "watched":
    watchdog.start()
with activity.during(ActivityKind.STEP, "execute_model"):
    print("begun", flush=True)
    {"spin": spin, "wait": wait}[sys.argv[1]]()
"""


class Ranks:
    """Two ranks: the first waits for what never comes, the second spins."""

    def __init__(self, folder: Path, watched: str) -> None:
        self.boxes = folder / "boxes"
        program = folder / "program.py"
        program.write_text(textwrap.dedent(PROGRAM))
        self.errors = folder / "stderr"
        self.processes = []
        for rank, what in enumerate(("wait", "spin")):
            given = {
                "GRAPHGUARD_DIR": str(self.boxes),
                "GRAPHGUARD_RING_ENTRIES": "1024",
                "GRAPHGUARD_STALL_SECONDS": "1",
                "RANK": str(rank),
                "WORLD_SIZE": "2",
                "PYTHONPATH": str(Path(__file__).parents[4]),
            }
            with self.errors.open("ab") as errors:
                self.processes.append(
                    subprocess.Popen(
                        [sys.executable, program, what, watched],
                        env={**os.environ, **given},
                        stdout=subprocess.PIPE,
                        stderr=errors,
                    )
                )
        for process in self.processes:
            assert process.stdout is not None
            assert process.stdout.readline() == b"begun\n"

    def await_line(self, pattern: str, seconds: float = 60.0) -> re.Match[str]:
        until = time.monotonic() + seconds
        while not (found := re.search(pattern, self.errors.read_text())):
            assert time.monotonic() < until, self.errors.read_text()
            time.sleep(0.05)
        return found

    def end(self) -> None:
        for process in self.processes:
            process.kill()
            process.wait()
            assert process.stdout is not None
            process.stdout.close()


@pytest.fixture
def watched(tmp_path: Path) -> Iterator[Ranks]:
    ranks = Ranks(tmp_path, "watched")
    yield ranks
    ranks.end()


@pytest.fixture
def unwatched(tmp_path: Path) -> Iterator[Ranks]:
    ranks = Ranks(tmp_path, "unwatched")
    yield ranks
    ranks.end()


def test_ranks_that_share_only_a_directory_are_examined_once(watched: Ranks) -> None:
    told = watched.await_line(
        r"STALL \[host-stuck\] rank 1 .*spin\(\) program\.py.*evidence: (\S+)"
    )
    # Long enough for the watchdog of the other rank to ask for an examiner of its own.
    time.sleep(2.5)
    assert watched.errors.read_text().count("STALL [") == 1
    bundle = Path(told[1])
    assert [path for path in watched.boxes.glob("stall-*") if path.is_dir()] == [bundle]
    verdict = json.loads((bundle / "verdict.json").read_text())
    assert (verdict["stall_class"], verdict["ranks"], verdict["format"]) == ("host-stuck", [1], 1)
    watched.end()
    watched.await_line(r"STALL \[host-stuck\] over: the processes of ranks 0-1 are gone")


def test_without_stacks_it_is_told_in_time_what_is_not_known(
    unwatched: Ranks, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(examination, "STACKS_SECONDS", 0.0)
    monkeypatch.setattr(examination, "FLOOR_SECONDS", 0.0)
    monkeypatch.setattr(examination, "NATIVE_SECONDS", 0.0)
    task = Task(unwatched.boxes, "abc", Suspect(0, unwatched.processes[0].pid, "step", 10**9))
    looks = Looks(task)
    time.sleep(0.2)
    examined = examine(task, looks)
    assert examined.verdict.ranks == ()
    assert any("its stack was not read" in each for each in examined.verdict.not_known)


def test_what_cannot_be_examined_is_one_line(
    unwatched: Ranks, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    def broken(*_: object, **__: object) -> None:
        raise RuntimeError("a test\x1b[2J")

    monkeypatch.setattr("graphguard.watch.examining.examiner.examine", broken)
    time.sleep(0.2)
    pid = unwatched.processes[0].pid
    arguments = ["--directory", str(unwatched.boxes), "--job", "abc", "--rank", "0"]
    assert main([*arguments, "--pid", str(pid), "--lane", "3", "--watched-ms", "100"]) == 1
    said = capfd.readouterr().err
    assert said.startswith(f"graphguard: rank 0 (pid {pid}) has been in step for 0.1 s")
    assert "\x1b" not in said


def test_it_needs_neither_torch_nor_a_terminal() -> None:
    program = (
        "import sys, graphguard.watch.examining.examiner\n"
        "print(*{'torch', 'numpy', 'rich', 'cupy', 'vllm', 'asyncio'} & set(sys.modules))"
    )
    done = subprocess.run(
        [sys.executable, "-c", program], check=True, capture_output=True, text=True, timeout=60
    )
    assert done.stdout.split() == []
