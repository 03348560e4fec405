"""What is done about a stall, to real processes."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import msgspec
import pytest

from graphguard.watch.examining.actions import Target, abort, act, run_command, targets
from graphguard.watch.looking.processes import process_state
from graphguard.watch.looking.ranks import RankState
from graphguard.watch.verdicts.verdict import verdict
from tests.unit.watch.states import rank

TOLD = verdict([], [rank(0), rank(1, state="gone")])

Sleeper = Callable[..., subprocess.Popen[bytes]]


@pytest.fixture
def sleeper() -> Iterator[Sleeper]:
    started: list[subprocess.Popen[bytes]] = []

    def start(ignores: bool = False) -> subprocess.Popen[bytes]:
        ignore = "signal.signal(signal.SIGABRT, signal.SIG_IGN); " if ignores else ""
        program = f"import signal, time; {ignore}print('begun', flush=True); time.sleep(600)"
        process = subprocess.Popen([sys.executable, "-c", program], stdout=subprocess.PIPE)
        started.append(process)
        assert process.stdout is not None
        process.stdout.readline()
        return process

    yield start
    for process in started:
        process.kill()
        process.wait()
        assert process.stdout is not None
        process.stdout.close()


def of(process: subprocess.Popen[bytes]) -> Target:
    return Target(0, process.pid, process_state(process.pid).started_ticks)


def test_processes_are_ended_by_sigabrt(sleeper: Sleeper) -> None:
    processes = [sleeper(), sleeper()]
    assert (
        abort([of(each) for each in processes]) == "ended 2 of 2 processes of this node by SIGABRT"
    )
    assert [each.wait(10) for each in processes] == [-signal.SIGABRT] * 2


def test_one_that_does_not_end_by_it_is_killed(sleeper: Sleeper) -> None:
    stopped, ignores = sleeper(), sleeper(ignores=True)
    os.kill(stopped.pid, signal.SIGSTOP)
    end = time.monotonic() + 20
    while process_state(stopped.pid).state != "stopped":
        assert time.monotonic() < end
    said = abort([of(stopped), of(ignores)], grace=0.5)
    assert said.endswith("2 of them by SIGKILL")
    assert [stopped.wait(10), ignores.wait(10)] == [-signal.SIGKILL] * 2


def test_a_process_that_has_taken_the_id_of_another_is_left_alone(sleeper: Sleeper) -> None:
    process = sleeper()
    other = of(process)._replace(started_ticks=of(process).started_ticks + 1)
    assert abort([other], grace=0.2) == "ended 0 of 1 processes of this node by SIGABRT"
    time.sleep(0.2)
    assert process.poll() is None


def test_only_living_processes_of_this_node_are_targets() -> None:
    def state(number: int, host: str, **more: str) -> RankState:
        return msgspec.structs.replace(rank(number, **more), host=host)  # type: ignore[arg-type]

    here = os.uname().nodename
    states = [state(0, here), state(1, "elsewhere"), state(2, here, state="gone")]
    assert [each.rank for each in targets(states)] == [0]


def test_a_command_is_told_what_happened_and_is_no_shell(tmp_path: Path) -> None:
    program = tmp_path / "a program.py"
    program.write_text(
        "import json, os, sys\n"
        "told = {k: v for k, v in os.environ.items() if k.startswith('GRAPHGUARD_STALL_')}\n"
        "json.dump([sys.argv[1:], told], open(sys.argv[1], 'w'))\n"
        "sys.exit(3)\n"
    )
    answer = tmp_path / "answer"
    command = f"{sys.executable} '{program}' {answer} '$(id)' ; x"
    assert run_command(command, TOLD, "/evidence").endswith("ended with 3")
    arguments, told = json.loads(answer.read_text())
    assert arguments[1:] == ["$(id)", ";", "x"]
    assert told["GRAPHGUARD_STALL_BUNDLE"] == "/evidence"
    assert told["GRAPHGUARD_STALL_CLASS"] == "process-died"
    assert told["GRAPHGUARD_STALL_RANKS"] == "1"


def test_a_command_is_bounded() -> None:
    began = time.monotonic()
    assert "was ended after" in run_command("sleep 600", TOLD, "", seconds=0.3)
    assert time.monotonic() - began < 20


@pytest.mark.parametrize("command", ["/does/not/exist", "'unbalanced", "   "])
def test_a_command_that_cannot_be_run_is_said(command: str) -> None:
    assert "was not run" in run_command(command, TOLD, "")


def test_nothing_is_done_unless_it_is_asked_for(monkeypatch: pytest.MonkeyPatch) -> None:
    states = [rank(0)]
    assert act(TOLD, "", states) == ""
    monkeypatch.setenv("GRAPHGUARD_ON_STALL", "explode")
    assert act(TOLD, "", states).startswith("nothing was done")
    monkeypatch.setenv("GRAPHGUARD_ON_STALL", "signal:true")
    assert act(TOLD, "", states) == "the command true ended with 0"
