"""A worker that is idle notices one that is not let run, with real processes that are stopped."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from graphguard.blackbox import writer
from graphguard.blackbox.pulse import read_pulse
from graphguard.vllm.peers import NAME, Peers

PEER = """
import sys, time
from graphguard.blackbox.pulse import read_pulse
from graphguard.blackbox.writer import process_box
from graphguard.watch import watchdog
box = process_box()
assert watchdog.start()
while read_pulse(box.path).beat_age_ns is None:
    time.sleep(0.05)
number = box.name("execute_model")
for line in sys.stdin:
    if line.startswith("begin"):
        box.ring.begin_activity(3, number, 1)
    else:
        box.ring.end_activity(3, number)
    print("done", flush=True)
"""


class Peer:
    """Another rank, in a process of its own."""

    def __init__(self, directory: Path) -> None:
        settings = {
            "GRAPHGUARD_DIR": str(directory),
            "GRAPHGUARD_STALL_SECONDS": "600",
            "GRAPHGUARD_RING_ENTRIES": "64",
            "RANK": "1",
            "WORLD_SIZE": "2",
        }
        self.process = subprocess.Popen(
            [sys.executable, "-c", PEER],
            env=os.environ | settings,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
        )

    def does(self, what: str) -> None:
        assert self.process.stdin is not None
        assert self.process.stdout is not None
        print(what, file=self.process.stdin, flush=True)
        assert self.process.stdout.readline() == "done\n"

    def end(self) -> None:
        self.process.kill()
        self.process.communicate()


@pytest.fixture
def peer(tmp_path: Path) -> Iterator[Peer]:
    made = Peer(tmp_path)
    yield made
    made.end()


@pytest.fixture
def looking(
    peer: Peer, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> Iterator[tuple[Peers, list[int]]]:
    peer.does("end")
    for name, value in (("RANK", "0"), ("WORLD_SIZE", "2"), ("GRAPHGUARD_RING_ENTRIES", "64")):
        monkeypatch.setenv(name, value)
    monkeypatch.setenv("GRAPHGUARD_DIR", str(tmp_path))
    monkeypatch.setattr(writer, "_process", writer._ProcessBox())
    box = writer.process_box()
    assert box is not None
    steps = [0]
    yield Peers(box, lambda: steps[0]), steps
    box.disown()


def shown() -> list[str]:
    box = writer.process_box()
    assert box is not None
    pulse = read_pulse(box.path)
    assert pulse is not None
    return [activity.name for activity in pulse.activities]


def soon(peers: Peers, condition: Callable[[], bool], seconds: float = 20.0) -> bool:
    until = time.monotonic() + seconds
    while time.monotonic() < until:
        peers.look()
        if condition():
            return True
        time.sleep(0.1)
    return False


def test_one_that_is_stopped_in_a_step_is_noticed_until_it_goes_on(
    peer: Peer, looking: tuple[Peers, list[int]]
) -> None:
    peers, _ = looking
    peer.does("begin")
    peer.process.send_signal(signal.SIGSTOP)

    assert soon(peers, lambda: shown() == [NAME])
    peer.process.send_signal(signal.SIGCONT)
    assert soon(peers, lambda: shown() == [])


def test_one_that_is_stopped_between_two_steps_is_noticed_too(
    peer: Peer, looking: tuple[Peers, list[int]]
) -> None:
    """Its engine may wait for the answer to the last one."""
    peers, _ = looking
    peer.process.send_signal(signal.SIGSTOP)

    assert soon(peers, lambda: shown() == [NAME])
    peer.process.send_signal(signal.SIGCONT)
    assert soon(peers, lambda: shown() == [])


def test_nothing_is_looked_for_while_steps_go_on(
    peer: Peer, looking: tuple[Peers, list[int]]
) -> None:
    peers, steps = looking
    peer.does("begin")
    peer.process.send_signal(signal.SIGSTOP)

    def another_step() -> bool:
        steps[0] += 1
        return shown() != []

    assert not soon(peers, another_step, 2.0)


def test_one_that_is_let_run_is_not_waited_for_however_long_its_step_takes(
    peer: Peer, looking: tuple[Peers, list[int]]
) -> None:
    peers, _ = looking
    peer.does("begin")
    time.sleep(1.0)
    seen = []
    for _ in range(20):
        peers.look()
        seen += shown()
        time.sleep(0.05)

    # On a machine with other things to do it may be late once.
    assert len(seen) <= 10
